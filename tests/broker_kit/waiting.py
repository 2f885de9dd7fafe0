"""Waiting with a deadline."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds between two looks.
LOOK_EVERY = 0.01


def eventually(look: Callable[[], Any], seconds: float, what: str) -> Any:
    """Return what `look` returns once that is truthy.

    Raises:
        AssertionError: if it was never so for `seconds`.
    """
    give_up_at = time.monotonic() + seconds
    while not (seen := look()):
        if time.monotonic() > give_up_at:
            raise AssertionError(f"not within {seconds} s: {what}; last seen {seen!r}")
        time.sleep(LOOK_EVERY)
    return seen
