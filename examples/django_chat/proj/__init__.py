"""A chat, a batch and a status page on Django."""

from proj import celery  # noqa: F401 - the web processes send their jobs through its application, too
