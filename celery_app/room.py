"""How long a publisher waits for room in a full lane."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from celery import current_task

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Seconds that a job in hand waits for room for the jobs that follow it: the next step of a chain, most of all. Its own
#: answer is paid for and would be lost, and neither a web request nor beat is held up.
WAIT_WITHIN_A_JOB = 30.0

_asked: ContextVar[float | None] = ContextVar("asked", default=None)


@contextmanager
def waiting_for_room(seconds: float | None) -> Iterator[None]:
    """Have what this block publishes wait that long, and not as long as its lane's ``submit_wait``; None: the same.

    Raises:
        ValueError: it is no time.
    """
    if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds >= 0):
        raise ValueError(f"wait= takes seconds, 0 or more, not {seconds!r}")
    token = _asked.set(seconds)
    try:
        yield
    finally:
        _asked.reset(token)


def wait_for_room(submit_wait: float) -> float:
    """Return the seconds that this publisher waits at most.

    Args:
        submit_wait: of the lane.
    """
    asked = _asked.get()
    if asked is not None:
        return asked
    return max(submit_wait, WAIT_WITHIN_A_JOB) if current_task else submit_wait
