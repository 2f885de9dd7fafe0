"""Wakes an event loop from another thread."""

from __future__ import annotations

import contextlib
import socket
from typing import Any


class LoopWakeup:
    """A socket that the loop watches and any thread may write to.

    A slot is freed in a pool's thread, while the loop sleeps until its next timer; without this a freed slot would
    stay empty for up to a second.
    """

    def __init__(self, loop: Any) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._loop = loop
        loop.add_reader(self._reader.fileno(), self._drain)

    def wake(self) -> None:
        """Make the loop run; any number of calls before it does count as one, and after `close` as none."""
        # A full buffer means that the loop has plenty of reason to wake already.
        with contextlib.suppress(OSError):
            self._writer.send(b"\0")

    def close(self) -> None:
        """Leave the loop alone."""
        self._loop.remove_reader(self._reader.fileno())
        self._reader.close()
        self._writer.close()

    def _drain(self) -> None:
        """Take up what was written; the loop looks for work on each of its turns anyhow."""
        with contextlib.suppress(OSError):
            while self._reader.recv(4096):
                pass
