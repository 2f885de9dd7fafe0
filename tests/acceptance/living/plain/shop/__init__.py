"""A shop: a plain Celery project with habits of its own."""
