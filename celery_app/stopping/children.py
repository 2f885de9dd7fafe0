"""A pool's processes, where SIGTERM goes to all of a worker's: systemd does so, and ``kill`` of a process group.

Such a process would end in the midst of its job, though its worker is about to finish it.
"""

from __future__ import annotations

import mmap
import os
import signal
import time
from typing import TYPE_CHECKING, Any

from celery import signals

from celery_app.broker.claims import queue_of
from celery_app.broker.rules import LANE_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable

#: What a worker was told: nothing yet, to finish what runs, to give it back.
NOTHING, FINISH, GIVE_BACK = b"\0\1\2"

#: Seconds within which a worker hears a signal, too, that was sent to all of its processes. If it does not, the signal
#: was meant for this one.
WORKER_HEARS = 0.5

_LOOK_EVERY = 0.01


class Children:
    """Tells the processes that are forked from this one what it was told; while they have a job of a lane they ask."""

    def __init__(self) -> None:
        """Have processes that are forked from now on ask."""
        self._worker, self._told = os.getpid(), mmap.mmap(-1, 1)
        self._before: Callable[[int, Any], object] | None = None
        self._job = ""
        signals.task_prerun.connect(self._begin)
        signals.task_postrun.connect(self._end)

    def tell(self, what: int) -> None:
        """Say what this worker was told."""
        self._told[0] = what

    def _begin(self, task: Any, **_: Any) -> None:
        request = task.request
        if os.getpid() == self._worker or queue_of(request.properties, request.delivery_info) not in LANE_NAMES:
            return
        before = signal.getsignal(signal.SIGTERM)
        if callable(before) and before != self._on_sigterm:  # else Celery's REMAP_SIGTERM has it ignored
            self._before, self._job = before, request.id
            signal.signal(signal.SIGTERM, self._on_sigterm)

    def _end(self, task_id: str, **_: Any) -> None:
        # A job may run other tasks within it, by their `apply`.
        if os.getpid() != self._worker and self._before is not None and task_id == self._job:
            signal.signal(signal.SIGTERM, self._before)
            self._before = None

    def _on_sigterm(self, number: int, frame: Any) -> None:
        give_up_at = time.monotonic() + WORKER_HEARS
        while self._told[0] == NOTHING and time.monotonic() < give_up_at:
            time.sleep(_LOOK_EVERY)
        if self._told[0] != FINISH and self._before is not None:
            self._before(number, frame)
