"""What the tests and benchmarks of the budget share."""
