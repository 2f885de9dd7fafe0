"""ProcessGroup: children that are gone when the command is gone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from demo import guard
from demo.child import Child
from demo.errors import GuardEnded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Seconds for the guard to clear up: its own two patiences and a little.
CLOSING = guard.GRACE + guard.KILLED + 1.0


class ProcessGroup:
    """The guard, its process group and its directory.

    The children are in the guard's group and not in the command's, so Ctrl-C in a terminal reaches the command alone.
    """

    def __init__(self) -> None:
        """Start the guard and learn its directory.

        Raises:
            GuardEnded: if it did not start.
        """
        # By path: importing the package would take ten times as long.
        command = [sys.executable, "-I", "-S", guard.__file__]
        pipe = subprocess.PIPE
        self._guard = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, process_group=0)
        line = self._guard.stdout.readline() if self._guard.stdout else b""
        if not line:
            raise GuardEnded
        #: For logs and configuration; only this user can read it, and it goes with the group.
        self.directory = Path(os.fsdecode(line.rstrip(b"\n")))

    @property
    def guard_pid(self) -> int:
        """The guard's process id, which is the group's."""
        return self._guard.pid

    def start(self, name: str, log_name: str, command: Sequence[str | Path], environ: Mapping[str, str]) -> Child:
        """Start a child in the group.

        Args:
            name: what an error calls it.
            log_name: name of its log file, without ``.log``.
            command: program and arguments.
            environ: its whole environment.

        Raises:
            GuardEnded: if there is no group any more.
        """
        self.check()
        log = self.directory / f"{log_name}.log"
        try:
            with log.open("wb") as output:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=environ,
                    process_group=self.guard_pid,
                )
        except PermissionError:
            self.check()  # the group went with its guard in this moment
            raise
        return Child(name, process, log)

    def check(self) -> None:
        """Raise `GuardEnded` if the guard is gone."""
        if self._guard.poll() is not None:
            raise GuardEnded

    def close(self) -> None:
        """End what is left in the group, and remove the directory."""
        pipe, self._guard.stdin = self._guard.stdin, None
        if pipe:
            pipe.close()
        # Reaped first: as a zombie the leader would count as a member of its group.
        self._guard.wait(CLOSING)
        self._guard.communicate(timeout=CLOSING)  # until nobody holds the pipe that the guard writes: it is done
        shutil.rmtree(self.directory, ignore_errors=True)  # for a guard that was killed
