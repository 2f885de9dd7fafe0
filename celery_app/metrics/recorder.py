"""An observer that counts in memory and adds its counts to Redis once a second."""

from __future__ import annotations

import logging
import os
import threading
import uuid
import weakref
from typing import TYPE_CHECKING, Any

from celery_app.connection import key_prefix, redis_client
from celery_app.metrics.store import record
from celery_app.metrics.tally import Tally

if TYPE_CHECKING:
    from celery_app.metrics.events import JobEvent

logger = logging.getLogger(__name__)

#: Seconds between two writes of one process: what a dashboard may lag behind, and what a SIGKILL may lose.
FLUSH_INTERVAL = 1.0

#: Batches that can be waiting: one whose answer is missing, and what was counted since.
_BATCHES = 2


class Recorder:
    """Counts the events of one process: `subscribe` it.

    While Redis is away the counts grow, not their number, and are written when it is back, into the time slot of that
    moment. A forked process begins with nothing, under a name and with a thread of its own; the thread starts with
    the first event, so a process that runs no job has none.
    """

    def __init__(self, app: Any) -> None:
        """Count for a Celery application with lanes; nothing connects yet."""
        self._app = app
        self._begin()
        _recorders.add(self)

    def _begin(self) -> None:
        # Reentrant: a signal may stop the worker in the middle of an event, on the same thread.
        self._counting = threading.RLock()
        self._sending = threading.RLock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        self._tally = Tally()
        self._unsent: Tally | None = None
        self._sender, self._number = uuid.uuid4().hex, 0
        self._away = False

    def __call__(self, event: JobEvent) -> None:
        """Count an event."""
        with self._counting:
            self._tally.add(event)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="lanes-metrics", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while not self._closed.wait(FLUSH_INTERVAL):
            self.flush()

    def flush(self) -> bool:
        """Write one batch, in one round trip; return False if Redis is away and the batch has to wait."""
        with self._sending:
            return not self._take() or self._send()

    def _take(self) -> bool:
        """Have a batch to send: the one whose answer is missing, or what was counted since."""
        with self._counting:
            if self._unsent is None and self._tally:
                self._unsent, self._tally = self._tally, Tally()
                self._number += 1
        return self._unsent is not None

    def _send(self) -> bool:
        try:
            record(redis_client(self._app), key_prefix(self._app), self._sender, self._number, self._unsent or Tally())
        except Exception as exc:  # noqa: BLE001 - whatever is wrong, the jobs matter more than their number
            if not self._away:
                logger.warning("The metrics cannot be written (%s); they are kept until they can.", exc)
            self._away = True
            return False
        self._unsent, self._away = None, False
        return True

    def flush_all(self, **_: Any) -> None:
        """Write everything, as a process does before it ends; takes Celery's signals, too."""
        all(self.flush() for _batch in range(_BATCHES))

    def close(self) -> None:
        """End the thread and write everything."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()
        self.flush_all()


#: Those of this process, for the sake of its forks.
_recorders: weakref.WeakSet[Recorder] = weakref.WeakSet()


def _after_fork() -> None:
    """The parent's counts are the parent's to write, its thread did not come along, its locks may be held for good."""
    for recorder in _recorders:
        recorder._begin()  # noqa: SLF001 - of this module


os.register_at_fork(after_in_child=_after_fork)
