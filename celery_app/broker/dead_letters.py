"""The dead letters: which there are, and a line at WARNING for each job that becomes one, whoever has buried it."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from celery_app.bounded_log import BoundedLog
from celery_app.scheduler.verbs import LIST_DEAD

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redis import Redis

logger = logging.getLogger(__name__)

#: Lines within 10 s for each lane; the others are counted.
MOST_LINES = 50

_lines = BoundedLog(logger.warning, MOST_LINES)


#: Dead letters that are listed unless more are asked for.
MOST_LISTED = 100


class DeadLetter(NamedTuple):
    """A job that nobody will work on.

    Attributes:
        id: of its record.
        lane: its lane, or another queue.
        task: name of its task; empty for a message that nobody can read, and so is its id.
        task_id: its id.
        reason: why, in words that show nothing of its arguments.
        age_s: seconds since it died.
        size: bytes of its message.
    """

    id: str
    lane: str
    task: str
    task_id: str
    reason: str
    age_s: float
    size: int


def dead_letters(client: Redis, prefix: str = "", most: int = MOST_LISTED) -> list[DeadLetter]:
    """Return the newest dead letters.

    Args:
        client: without a key prefix of its own.
        prefix: what stands before every key of the broker.
        most: how many at most.

    Raises:
        redis.exceptions.RedisError: if the broker is away.
    """
    rows = LIST_DEAD.run(client, (), (prefix, most))
    return [_dead_letter(row) for row in rows]


def _dead_letter(row: Any) -> DeadLetter:
    own, lane, task, task_id, reason = (word.decode() for word in row[:5])
    return DeadLetter(own, lane, task, task_id, reason, row[5] / 1000, row[6])


def say_buried(lane: str, task: str, task_id: str, reason: str) -> None:
    """Say that nobody will work on a job.

    Args:
        lane: its lane, or another queue.
        task: name of its task, as far as is known.
        task_id: its id, likewise.
        reason: why, in words that show nothing of its arguments.
    """
    line = f"{lane}: {_short(task)}[{_short(task_id)}] goes to the dead letters: {reason}"
    _lines.say(f"{lane}: jobs went to the dead letters", line)


def job_in_hand(tag: str) -> str:
    """Return name and id of the job of a delivery tag that this worker's pool is busy with; else the tag."""
    state = sys.modules.get("celery.worker.state")
    for request in tuple(state.reserved_requests) if state is not None else ():
        properties: Mapping[str, Any] = (request.message.properties if request.message is not None else None) or {}
        if str(properties.get("delivery_tag", "")).endswith(f"|{tag}"):
            lane = (request.delivery_info or {}).get("routing_key")
            return f"{lane}: {request.name}[{request.id}]"
    return f"job {tag}"


#: Characters of a name or an id that somebody else's message gave.
_LONGEST = 120


def _short(text: str) -> str:
    return " ".join(text[:_LONGEST].split())
