"""What a worker's log says at WARNING of jobs that fail, and of calls that the API refuses: a line each.

Celery writes a failure that was foreseen at INFO, which a worker does not show unless it is told to.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from celery_app.bounded_log import BoundedLog
from celery_app.broker.claims import is_claimed
from celery_app.errors import ApiError, LanesError

if TYPE_CHECKING:
    from tasks.base import LaneTask

logger = logging.getLogger(__name__)

#: Lines of failed jobs within 10 s, for each lane and kind of failure: each job has one, until a key is wrong while a
#: batch is worked off.
MOST_FAILURES = 50

#: Lines of refused calls within 10 s, for each lane and status: a few show what is going on, their number the rest.
MOST_REFUSALS = 5

_failures = BoundedLog(logger.warning, MOST_FAILURES)
_refusals = BoundedLog(logger.warning, MOST_REFUSALS)


def say_failed(task: LaneTask, error: BaseException) -> None:
    """Say that the job in hand has failed for good; called eagerly, its caller has the error."""
    if task.request.is_eager:
        return
    kept = ", kept as a dead letter" if task.request.get(DEAD_LETTER) else ""
    _failures.say(
        f"{task.lane.name}: jobs failed ({_kind(error)})",
        f"{_job(task)} failed after {_attempts(task.request.retries + 1)}{kept}: {reason_of(error)}",
    )


def say_refused(task: LaneTask, error: BaseException, wait: float) -> None:
    """Say that a call of the job in hand has failed, and that the job will make it again.

    Args:
        task: with the job in hand.
        error: how it failed.
        wait: seconds until then.
    """
    _refusals.say(
        f"{task.lane.name}: calls failed and will be repeated ({_kind(error)})",
        f"{_job(task)} goes back to its lane for {wait:.1f} s "
        f"in attempt {task.request.retries + 1} of {task.lane.attempts}: {reason_of(error)}",
    )


def say_cancelled(task: LaneTask) -> None:
    """Say that the job in hand was cancelled; somebody wanted that, so it is no warning."""
    logger.info("%s was cancelled", _job(task))


#: Attribute of a request: why its job is kept as a dead letter if it fails, and after how many tries.
DEAD_LETTER = "lanes_dead_letter"

#: How the reason of a dead letter begins that the account is to blame for; as in scheduler/scripts/lib/overdue.lua.
REFUSES_ACCOUNT = "the API refuses the account: "


def keep_if_failed(task: LaneTask, reason: str, tries: int) -> None:
    """Have the job in hand be kept as a dead letter, should it fail.

    Args:
        task: with the job in hand.
        reason: why, in words that show nothing of its arguments.
        tries: calls that it made, or tried to.
    """
    if is_claimed(task.request.properties):
        setattr(task.request, DEAD_LETTER, (reason, tries))


def keep_dead_letter(task: LaneTask) -> None:
    """Keep the job in hand, if it is to be kept; it has failed, and whoever waits has been told: it may be replayed."""
    kept = task.request.get(DEAD_LETTER)
    if kept and is_claimed(task.request.properties):
        from celery_app.broker.returns import bury  # brings redis-py along

        setattr(task.request, DEAD_LETTER, None)
        bury(task.app, task.request.properties, *kept)


def reason_of(error: Any) -> str:
    """Return what may be shown of an error: all of our own, of any other its type, since its words are anybody's."""
    name = type(error).__name__
    return f"{name}: {error}" if isinstance(error, LanesError) else name


def _kind(error: BaseException) -> str:
    return f"{type(error).__name__} {error.status}" if isinstance(error, ApiError) else type(error).__name__


def _job(task: LaneTask) -> str:
    return f"{task.lane.name}: {task.name}[{task.request.id}]"


def _attempts(count: int) -> str:
    return "1 attempt" if count == 1 else f"{count} attempts"
