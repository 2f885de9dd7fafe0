"""Child: one supervised process, with what it says in a log file."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from demo.errors import ChildEnded

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterable
    from pathlib import Path

#: Lines of a log that an error shows: a traceback's end, and what came before it.
TAIL_LINES = 12
#: Bytes read from a log's end to find them.
TAIL_BYTES = 16_384
#: Seconds that a killed process needs to be gone.
KILLED = 1.0
#: Seconds between two looks at a process.
TICK = 0.02


class Child:
    """A process that is meant to run until it is stopped."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        """Take a started process.

        Args:
            name: what an error calls it.
            process: with its output going to `log`.
            log: the file.
        """
        self.name = name
        self.process = process
        self.log = log

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether the process is still there."""
        return self.process.poll() is None

    def check(self) -> None:
        """Raise `ChildEnded`, with the end of the log, if the process is gone."""
        if not self.running:
            raise ChildEnded(name=self.name, status=self.process.returncode, log=self.tail())

    def tail(self) -> str:
        """Return the last lines of the log, as an error's ending."""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()[-TAIL_LINES:]
        return "\n".join(["; the end of its log:", *(f"  {line}" for line in lines)]) if lines else "; its log is empty"


def stop(children: Iterable[Child], grace: float, hurried: Callable[[], bool]) -> None:
    """Stop children together: ask them, wait until they are gone, kill what is left.

    Args:
        children: running or not.
        grace: seconds to wait.
        hurried: True ends the waiting at once.
    """
    left = [child for child in children if child.running]
    for child in left:
        child.process.terminate()
    deadline = time.monotonic() + grace
    while any(child.running for child in left) and time.monotonic() < deadline and not hurried():
        time.sleep(TICK)
    for child in left:
        if child.running:
            child.process.kill()
            child.process.wait(KILLED)
