"""What a worker's log says while Redis is away: a few lines of each kind, however many jobs meet it."""

from __future__ import annotations

import logging

from celery_app.process.bounded_log import BoundedLog

logger = logging.getLogger(__name__)

#: Lines of one kind within 10 s: what is going on, and that it goes on; the others are counted.
MOST_LINES = 2

_lines = BoundedLog(logger.warning, MOST_LINES)


def say_away(consequence: str, error: Exception) -> None:
    """Say what cannot be done at the moment.

    Args:
        consequence: in words; one of a few, so without any job's name.
        error: what Redis, or the connection to it, said.
    """
    _lines.say(consequence, f"{consequence}: {error}")
