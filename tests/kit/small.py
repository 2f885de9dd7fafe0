"""The project with lanes, where a job of more than 10 kB is too large."""

from celery_app.broker import packet
from kit.project import app

packet.MAX_MESSAGE_BYTES = 10_000

__all__ = ["app"]
