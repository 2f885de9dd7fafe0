"""Where the broker is, in which words, and the lanes' own connections to it."""
