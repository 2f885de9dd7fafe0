"""What a process has once: its background thread, what a fork makes anew, what its log says in an outage."""
