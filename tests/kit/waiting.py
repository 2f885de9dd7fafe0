"""Waiting with a deadline, and promises of time that hold on a busy machine, too."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

#: Seconds between two looks.
LOOK_EVERY = 0.01

#: Seconds that any wait may take which says nothing else; the slowest wait for two backoffs.
IN_TIME_S = 30.0


def wait_until(condition: Callable[[], Any], what: str, seconds: float = IN_TIME_S) -> Any:
    """Return what `condition` returns once that is truthy.

    Raises:
        AssertionError: if it was never so for `seconds`.
    """
    give_up_at = time.monotonic() + seconds
    while not (seen := condition()):
        assert time.monotonic() < give_up_at, f"not within {seconds} s: {what}; last seen {seen!r}"
        time.sleep(LOOK_EVERY)
    return seen


def in_time(seconds: float) -> float:
    """Return how long what is promised in `seconds` may take at the moment: longer by the work that waits for a core.

    On an idle machine that is the promise itself. Not the load alone counts, which is a minute's mean.
    """
    waiting = os.getloadavg()[0]
    with suppress(OSError), Path("/proc/loadavg").open() as file:
        waiting = max(waiting, int(file.read().split()[3].partition("/")[0]))
    return seconds * max(1.0, waiting / (os.cpu_count() or 1))
