"""What this process was told: to stop once its jobs are done, to stop now, to give back what runs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_hearers: list[Callable[[], object]] = []
_stops = _softly = _gives_back = False


def begin() -> None:
    """Forget what a worker was told that was in this process before, as those of tests are."""
    global _stops, _softly, _gives_back  # noqa: PLW0603 - one worker at a time in a process
    _stops = _softly = _gives_back = False


def stops() -> bool:
    """Say whether it was told to stop in whatever way: its main thread waits for its slots, or is about to."""
    return _stops


def stop() -> None:
    """Take note that it was told to stop."""
    global _stops  # noqa: PLW0603 - a process stops once
    _stops = True


def waits_softly() -> bool:
    """Say whether it takes nothing more, though its main thread goes on: what runs has a while to end."""
    return _softly


def wait_softly() -> None:
    """Begin to give what runs a while to end."""
    global _softly  # noqa: PLW0603 - a process stops once
    _softly = True


def warm_shutdown() -> bool:
    """Say whether it is to stop once its jobs are done; a pool's process is not told."""
    return _told("should_stop")


def cold_shutdown() -> bool:
    """Say whether it is to stop now."""
    return _told("should_terminate")


def gives_back() -> bool:
    """Say whether the jobs that run here go back to their lanes, and none begins."""
    return _gives_back


def when_giving_back(hearer: Callable[[], object]) -> None:
    """Have a function called, in whatever thread, when this process gives back what runs."""
    _hearers.append(hearer)


def give_back() -> None:
    """Begin to give back what runs."""
    global _gives_back  # noqa: PLW0603 - a process stops once
    _gives_back = True
    for hearer in _hearers:
        hearer()


def _told(name: str) -> bool:
    code = getattr(sys.modules.get("celery.worker.state"), name, None)
    # Celery's "told to" is any exit code, 0 included.
    return code is not None and code is not False
