"""The stack on one machine, the demo on it and the simulated API. None of it is in the wheel."""
