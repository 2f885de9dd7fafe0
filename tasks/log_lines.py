"""What a worker's log says of jobs that fail, and of calls that the API refuses: a line each, at WARNING.

Celery writes a failure that was foreseen at INFO, which a worker does not show unless it is told to.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from celery_app.errors import ApiError, LanesError
from celery_app.process.bounded_log import BoundedLog

if TYPE_CHECKING:
    from tasks.job import Job

logger = logging.getLogger(__name__)

#: Lines of failed jobs within 10 s, for each lane and kind of failure: each job has one, until a key is wrong while a
#: batch is worked off.
MOST_FAILURES = 50

#: Lines of refused calls within 10 s, for each lane and status: a few show what is going on, their number the rest.
MOST_REFUSALS = 5

_failures = BoundedLog(logger.warning, MOST_FAILURES)
_refusals = BoundedLog(logger.warning, MOST_REFUSALS)


def say_failed(job: Job, error: BaseException) -> None:
    """Say that a job has failed for good; called eagerly, its caller has the error."""
    if job.is_eager:
        return
    kept = ", kept as a dead letter" if job.attempt.dead_letter else ""
    _failures.say(
        f"{job.lane.name}: jobs failed ({_kind(error)})",
        f"{_words(job)} failed after {_attempts(job.tries + 1)}{kept}: {reason_of(error)}",
    )


def say_refused(job: Job, error: BaseException, wait: float) -> None:
    """Say that a call of a job has failed, and that the job will make it again.

    Args:
        job: whose call it was.
        error: how it failed.
        wait: seconds until then.
    """
    _refusals.say(
        f"{job.lane.name}: calls failed and will be repeated ({_kind(error)})",
        f"{_words(job)} goes back to its lane for {wait:.1f} s "
        f"in attempt {job.tries + 1} of {job.lane.attempts}: {reason_of(error)}",
    )


def say_cancelled(job: Job) -> None:
    """Say that a job was cancelled; somebody wanted that, so it is no warning."""
    logger.info("%s was cancelled", _words(job))


def reason_of(error: Any) -> str:
    """Return what may be shown of an error: all of our own, of any other its type, since its words are anybody's."""
    name = type(error).__name__
    return f"{name}: {error}" if isinstance(error, LanesError) else name


def _kind(error: BaseException) -> str:
    return f"{type(error).__name__} {error.status}" if isinstance(error, ApiError) else type(error).__name__


def _words(job: Job) -> str:
    return f"{job.lane.name}: {job.task}[{job.id}]"


def _attempts(count: int) -> str:
    return "1 attempt" if count == 1 else f"{count} attempts"
