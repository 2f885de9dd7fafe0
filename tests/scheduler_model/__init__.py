"""A model of the scheduler: what may happen to jobs, and what must hold after each step, on the real scripts."""
