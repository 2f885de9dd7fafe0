"""An observer that counts in memory and adds its counts to Redis once a second."""

from __future__ import annotations

import threading
import uuid
from typing import TYPE_CHECKING, Any

from celery_app.connections.redis_client import heartbeat_client, key_prefix
from celery_app.metrics.store import record
from celery_app.metrics.tally import Tally
from celery_app.process.forks import begin_in_each_process
from celery_app.process.heartbeat import HEARTBEAT, Entry

if TYPE_CHECKING:
    from celery_app.metrics.events import JobEvent

#: Seconds between two writes of one process: what a dashboard may lag behind, and what a SIGKILL may lose.
FLUSH_INTERVAL = 1.0

#: Batches that can be waiting: one whose answer is missing, and what was counted since.
_BATCHES = 2


class Recorder:
    """Counts the events of one process: `subscribe` it.

    While Redis is away the counts grow, not their number, and are written when it is back, into the time slot of that
    moment. A forked process begins with nothing, under a name of its own; the heartbeat hears of it with the first
    event, so a process that runs no job has none.
    """

    def __init__(self, app: Any) -> None:
        """Count for a Celery application with lanes; nothing connects yet."""
        self._app = app
        self._writing = Entry("write the metrics", FLUSH_INTERVAL, self._write)
        begin_in_each_process(self)

    def begin(self) -> None:
        """Have counted nothing: the parent's counts are the parent's to write."""
        # Reentrant: a signal may stop the worker in the middle of an event, on the same thread.
        self._counting = threading.RLock()
        self._sending = threading.RLock()
        self._tally = Tally()
        self._unsent: Tally | None = None
        self._sender, self._number = uuid.uuid4().hex, 0

    def __call__(self, event: JobEvent) -> None:
        """Count an event."""
        with self._counting:
            self._tally.add(event)
        HEARTBEAT.wake(self._writing)

    def flush(self) -> bool:
        """Write one batch, in one round trip; return False if Redis is away and the batch has to wait."""
        self._writing.run()
        return self._unsent is None

    def _write(self) -> bool:
        with self._sending:
            tally = self._take()
            if tally is not None:
                record(heartbeat_client(self._app), key_prefix(self._app), self._sender, self._number, tally)
                self._unsent = None
        return bool(self._tally)

    def _take(self) -> Tally | None:
        """Return the batch to send: the one whose answer is missing, or what was counted since."""
        with self._counting:
            if self._unsent is None and self._tally:
                self._unsent, self._tally = self._tally, Tally()
                self._number += 1
        return self._unsent

    def flush_all(self, **_: Any) -> None:
        """Write everything, as a process does before it ends; takes Celery's signals, too."""
        all(self.flush() for _batch in range(_BATCHES))

    def close(self) -> None:
        """Leave the heartbeat, and write everything."""
        HEARTBEAT.end(self._writing)
        self.flush_all()
