"""What operators can set, where it was set, and what Celery shows of it."""
