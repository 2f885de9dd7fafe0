"""Warnings of which there may be thousands a second: the first are written, the others are counted."""

from __future__ import annotations

import os
import threading
import weakref
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds over which lines of one kind are counted.
WINDOW = 10.0


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
        self._begin()
        _logs.add(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[str, int] = defaultdict(int)

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
            timer = threading.Timer(self._window, self._close, (kind,))
            timer.daemon = True
            timer.start()
        if seen <= self._most:
            self._write(line)

    def _close(self, kind: str) -> None:
        """End a kind's window."""
        with self._lock:
            unsaid = self._seen.pop(kind) - self._most
        if unsaid > 0:
            self._write(f"{unsaid:,} more within {self._window:.0f} s: {kind}")


#: Those of this process, for the sake of its forks: the timers do not come along.
_logs: weakref.WeakSet[BoundedLog] = weakref.WeakSet()


def _after_fork() -> None:
    for log in _logs:
        log._begin()  # noqa: SLF001 - of this module


os.register_at_fork(after_in_child=_after_fork)
