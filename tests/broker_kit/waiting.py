"""Waiting with a deadline."""

import time
from collections.abc import Callable
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
