"""Where results are, and how they get there."""
