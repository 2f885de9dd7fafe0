"""The one background thread of a process: what has to be done again and again, however busy the process is.

Each entry is due at its own time, and they run one after the other. So none may wait for long: an entry talks to the
broker only, by `heartbeat_client`, which waits for an answer for `REPLY_TIMEOUT` and no longer.
That is for how long a broken connection holds up the others; a server that is mute is so to all of them. What waits for
anything else, as a project's own code or its result backend, is handed to a thread of its own.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from celery_app.process.forks import begin_in_each_process

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

#: Seconds that the broker may take to answer an entry: a fifth of a lease, so that the leases outlive a connection that
#: another entry finds broken and one that they find broken themselves.
REPLY_TIMEOUT = 3.0

#: Seconds until an entry that has failed is tried again, if it is not due before.
RETRY_EVERY = 0.5

#: Seconds without a failure after which an outage is over; the next failure is said again.
OUTAGE_OVER = 10.0

#: Seconds that whoever ends an entry, or the process, waits for the run under way: an answer, and connecting before it.
STOP_WITHIN = 5.0


@dataclass(eq=False, slots=True)
class Entry:
    """What a part of the process has the heartbeat do for it.

    Attributes:
        name: what it does, in words that continue "cannot ".
        interval: seconds from the end of one run to the next.
        function: does it, and returns whether there is more to do; if not, it rests until it is woken.
    """

    name: str
    interval: float
    function: Callable[[], bool]
    _failed_at: float = field(default=float("-inf"), init=False)

    def run(self) -> float | None:
        """Run it now, in this thread; return the seconds until the next run, None if it may rest.

        Whatever it raises is logged, once in an outage.
        """
        try:
            return self.interval if self.function() else None
        except Exception as exc:  # noqa: BLE001 - nobody starts the thread again, and the other entries need it
            self._say(exc)
            return min(self.interval, RETRY_EVERY)

    def _say(self, exc: Exception) -> None:
        now = time.monotonic()
        if now - self._failed_at > OUTAGE_OVER:
            logger.warning("cannot %s at the moment: %s", self.name, exc)
        self._failed_at = now


class Heartbeat:
    """Runs the entries that are awake; its thread starts with the first of them."""

    def __init__(self) -> None:
        begin_in_each_process(self)

    def begin(self) -> None:
        """Have no thread: the parent's entries are the parent's, until somebody wakes them here."""
        # Reentrant: a signal may stop the worker while its main thread wakes an entry.
        self._changed = threading.Condition(threading.RLock())
        self._due: dict[Entry, float] = {}
        self._running: Entry | None = None
        self._woken = False
        self._over = False
        self._thread: threading.Thread | None = None

    def wake(self, entry: Entry, *, at_once: bool = False) -> None:
        """Run an entry after its interval, and on from then as long as it has something to do.

        One that is awake already stays as it is. What it is to see has to be there before this is called.

        Args:
            entry: any number of times.
            at_once: run it without waiting for its interval first.
        """
        with self._changed:
            if self._over:
                return
            self._woken = self._woken or entry is self._running
            if entry not in self._due:
                self._due[entry] = time.monotonic() + (0.0 if at_once else entry.interval)
                self._changed.notify_all()
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="lanes-heartbeat", daemon=True)
                thread.start()
                self._thread = thread

    def end(self, entry: Entry) -> None:
        """Run an entry no more, and wait until a run under way has ended, `STOP_WITHIN` at most."""
        with self._changed:
            self._due.pop(entry, None)
            if threading.current_thread() is not self._thread:
                self._changed.wait_for(lambda: self._running is not entry, STOP_WITHIN)

    def stop(self) -> None:
        """Run nothing any more, and wait for the thread, `STOP_WITHIN` at most; for the end of the process."""
        with self._changed:
            self._over, thread = True, self._thread
            self._changed.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join(STOP_WITHIN)

    def _run(self) -> None:
        while (entry := self._next()) is not None:
            self._ran(entry, entry.run())

    def _next(self) -> Entry | None:
        """Wait until an entry is due: the one that has been so for the longest; None: the heartbeat is to stop."""
        with self._changed:
            while not self._over:
                entry = min(self._due, key=self._due.__getitem__, default=None)
                pause = None if entry is None else self._due[entry] - time.monotonic()
                if entry is not None and pause is not None and pause <= 0:
                    self._running, self._woken = entry, False
                    return entry
                self._changed.wait(pause)
            return None

    def _ran(self, entry: Entry, pause: float | None) -> None:
        with self._changed:
            # Woken meanwhile: it may have looked before there was anything to see.
            pause = entry.interval if pause is None and self._woken else pause
            if pause is None:
                self._due.pop(entry, None)
            elif entry in self._due:  # nobody has ended it
                self._due[entry] = time.monotonic() + pause
            self._running = None
            self._changed.notify_all()


#: The process's.
HEARTBEAT = Heartbeat()

# First of all that has something to do at the end, so it is the last to end.
atexit.register(HEARTBEAT.stop)
