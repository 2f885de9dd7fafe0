"""What a forked process makes anew: its parent's threads did not come along, and locks of its parent may stay held.

A pool of processes forks at any moment, while the worker's own threads run.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forked(Protocol):
    """What has locks, a thread, or something that is the parent's business."""

    def begin(self) -> None:
        """Have none of it yet, in this process."""


_known: weakref.WeakSet[Forked] = weakref.WeakSet()


def begin_in_each_process(thing: Forked) -> None:
    """Call ``thing.begin()`` now, and in each process that is forked from this one as long as the thing lives."""
    _known.add(thing)
    thing.begin()


def _begin_anew() -> None:
    for thing in _known:
        thing.begin()


os.register_at_fork(after_in_child=_begin_anew)
