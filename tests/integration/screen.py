"""A command on a terminal of its own: a real one, but for whoever looks at it, which is a terminal emulator."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import sys
import termios
import time
from typing import TYPE_CHECKING, Self

import pyte

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable

#: Seconds that anything on the screen may take, on a busy machine.
IN_TIME_S = 60.0

#: Its terminal is the one that Ctrl-C and Ctrl-Z come from.
_ON_A_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])"
)

UP, DOWN = "\x1b[A", "\x1bOB"  # each of the two ways that terminals have


class OnScreen:
    """A running command; a context manager that leaves no process behind."""

    def __init__(self, command: list[str], env: dict[str, str], columns: int = 80, lines: int = 24) -> None:
        """Start it on a terminal of this size."""
        self.leader, self.follower = os.openpty()
        self._screen, self.raw = pyte.Screen(columns, lines), b""
        self._stream = pyte.ByteStream(self._screen)
        self.resize(columns, lines)
        self.modes = termios.tcgetattr(self.follower)
        self.process = subprocess.Popen(
            [sys.executable, "-c", _ON_A_TERMINAL, *command],
            env={"TERM": "xterm-256color", "PYTHONUTF8": "1", **env},
            stdin=self.follower,
            stdout=self.follower,
            stderr=self.follower,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nothing running."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(IN_TIME_S)
        os.close(self.leader)
        os.close(self.follower)

    def resize(self, columns: int, lines: int) -> None:
        """Make the terminal another size, as a person does with a mouse."""
        self._screen.resize(lines, columns)
        fcntl.ioctl(self.follower, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self.leader, keys.encode())

    @property
    def lines(self) -> list[str]:
        """What stands on the screen, line by line."""
        return [line.rstrip() for line in self._screen.display]

    @property
    def text(self) -> str:
        """The same as one text."""
        return "\n".join(self.lines)

    def line(self, beginning: str) -> str:
        """Return the line that begins so; empty: there is none."""
        return next((line for line in self.lines if line.startswith(beginning)), "")

    def until(self, look: Callable[[], object], what: str) -> None:
        """Wait until something stands on the screen."""
        deadline = time.monotonic() + IN_TIME_S
        while not look():
            left = deadline - time.monotonic()
            assert left > 0, f"not in time: {what}; last seen:\n{self.text}"
            self._read(min(left, 1.0))

    def ended(self) -> int:
        """Wait for the command's end; return its exit code, with all that it has written read."""
        self.until(lambda: self.process.poll() is not None, "the command ends")
        while self._read(0):
            pass
        return self.process.wait()

    @property
    def is_restored(self) -> bool:
        """Whether the terminal is as the command found it: its modes, its other screen, its cursor."""
        shown = [
            self.raw.rfind(on) > self.raw.rfind(off)
            for on, off in ((b"\x1b[?1049l", b"\x1b[?1049h"), (b"\x1b[?25h", b"\x1b[?25l"))
        ]
        return all(shown) and termios.tcgetattr(self.follower) == self.modes

    def signal(self, number: signal.Signals) -> None:
        """Send the command a signal."""
        self.process.send_signal(number)

    def _read(self, seconds: float) -> bool:
        """Read what comes within a time; return whether anything did."""
        if not select.select([self.leader], (), (), seconds)[0]:
            return False
        read = os.read(self.leader, 65_536)
        self.raw += read
        self._stream.feed(read)
        return True
