"""How long a publisher waits for room in a full lane."""

from __future__ import annotations

import random
import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from celery import current_task

from celery_app.errors import LaneFull

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Seconds that a job in hand waits for room for the jobs that follow it: the next step of a chain, most of all. Its own
#: answer is paid for and would be lost, and neither a web request nor beat is held up.
WAIT_WITHIN_A_JOB = 30.0

#: Seconds between two tries to get into a full lane: doubling, so that a short wait ends soon and a long one is cheap.
FIRST_PAUSE, LONGEST_PAUSE = 0.005, 0.1

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


class WaitForRoom:
    """A publisher's wait for room in a full lane."""

    def __init__(self, lane: str, submit_wait: float) -> None:
        """Begin; `submit_wait` is the lane's."""
        self._lane, self._longest = lane, wait_for_room(submit_wait)
        self.begin_anew()

    def begin_anew(self) -> None:
        """Count from now on: the lane moves."""
        self._since, self._pause = time.monotonic(), FIRST_PAUSE

    def pause(self, depth: int, capacity: int) -> None:
        """Wait a little.

        Raises:
            LaneFull: it has waited as long as it may; the numbers are the lane's.
        """
        waited = time.monotonic() - self._since
        if waited >= self._longest:
            raise LaneFull(lane=self._lane, depth=depth, capacity=capacity, waited=waited)
        # Jitter keeps a crowd of publishers from coming back all at once.
        time.sleep(min(self._pause * random.uniform(0.5, 1), self._longest - waited))
        self._pause = min(self._pause * 2, LONGEST_PAUSE)


def wait_for_room(submit_wait: float) -> float:
    """Return the seconds that this publisher waits at most.

    Args:
        submit_wait: of the lane.
    """
    asked = _asked.get()
    if asked is not None:
        return asked
    return max(submit_wait, WAIT_WITHIN_A_JOB) if current_task else submit_wait
