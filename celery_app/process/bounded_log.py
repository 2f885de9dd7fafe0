"""Warnings of which there may be thousands a second: the first are written, the others are counted."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from typing import TYPE_CHECKING

from celery_app.process.forks import begin_in_each_process
from celery_app.process.heartbeat import HEARTBEAT, Entry

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds over which lines of one kind are counted.
WINDOW = 10.0

#: Looks within a window for whether it is over.
_LOOKS = 10


class BoundedLog:
    """Writes at most `most` lines of one kind within a window, and one more at its end with the number of the others.

    A process that ends before may leave a window's number unsaid; every job's outcome is in the result backend anyway.
    """

    def __init__(self, write: Callable[[str], None], most: int, window: float = WINDOW) -> None:
        """Write nothing yet.

        Args:
            write: a logger's method.
            most: lines of one kind within a window.
            window: in seconds.
        """
        self._write, self._most, self._window = write, most, window
        self._closing = Entry("count lines", window / _LOOKS, self._close)
        begin_in_each_process(self)

    def begin(self) -> None:
        """Have no window open: those of a parent are counted there."""
        self._lock = threading.Lock()
        self._seen: dict[str, int] = defaultdict(int)
        self._until: dict[str, float] = {}

    def say(self, kind: str, line: str) -> None:
        """Write a line, or count it.

        Args:
            kind: what the count is about, in words that continue "3 more: "; few of them, so no job's id.
            line: the whole line.
        """
        with self._lock:
            self._seen[kind] += 1
            seen = self._seen[kind]
            if seen == 1:
                self._until[kind] = time.monotonic() + self._window
        if seen == 1:
            HEARTBEAT.wake(self._closing)
        if seen <= self._most:
            self._write(line)

    def _close(self) -> bool:
        """End the windows that are over; return whether others are open."""
        now = time.monotonic()
        with self._lock:
            self._until = {kind: until for kind, until in self._until.items() if until > now}
            over = [kind for kind in self._seen if kind not in self._until]
            unsaid = {kind: self._seen.pop(kind) - self._most for kind in over}
        for kind, number in unsaid.items():
            if number > 0:
                self._write(f"{number:,} more within {self._window:.0f} s: {kind}")
        return bool(self._until)
