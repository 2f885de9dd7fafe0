"""The embedded broker and the simulated EzAI API, for trying the lanes on one machine."""
