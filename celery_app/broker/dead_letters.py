"""A line at WARNING for each job that goes to the dead letters, whoever has dead-lettered it.

The letters themselves are in `celery_app.dead_letters`.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

from celery_app.process.bounded_log import BoundedLog

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger(__name__)

#: Lines within 10 s for each lane; the others are counted.
MOST_LINES = 50

_lines = BoundedLog(logger.warning, MOST_LINES)


def say_dead_letter(lane: str, task: str, task_id: str, reason: str) -> None:
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
