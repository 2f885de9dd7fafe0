"""What happened to the jobs: one event, and whoever wants to know of it."""
