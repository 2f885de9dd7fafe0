"""The decision which job leaves the broker when; it is taken in Redis, by one script."""
