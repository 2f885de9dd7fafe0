"""What a job says of itself on its way into a lane, and how it gets there."""
