"""Child processes that are gone when the command that started them is gone, however it went; and how it is told to."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from demo.errors import ChildEnded, Unusable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

#: Lines of a log that an error shows: a traceback's end, and what came before it. Seconds between two looks.
TAIL_LINES, TICK = 12, 0.02
#: What tells a command to end, and a shell's status for one that Ctrl-C has ended: 128 + SIGINT.
SIGNALS, INTERRUPTED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP), 130
#: The guard leads a process group into which every child is started, and reads a pipe that only the command holds
#: open. When the command is gone, however it went, the pipe ends, and the guard ends the group: it asks, waits for 3 s
#: (nobody waits for the children's work any more), removes the directory and kills what is left, itself included.
#:
#: A child between its fork and its exec holds the pipe, too. It joins the group before it closes the pipe (the order in
#: CPython's ``_posixsubprocess.c``), so when the pipe ends there is no child left that the group does not have yet. The
#: guard makes the directory, so that a command killed at any time leaves none behind.
GUARD = """trap '' INT TERM HUP PIPE; d=$(mktemp -d "${TMPDIR:-/tmp}/ezai-lanes-XXXXXX") && echo "$d" || exit
read _; kill -TERM 0; sleep 3; rm -rf "$d"; kill -KILL 0"""


class Child:
    """A process that is meant to run until it is stopped, with what it says in a log file."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        """Take a started process, and what an error calls it."""
        self.name, self.process, self.log = name, process, log

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
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        lines = text.splitlines()[-TAIL_LINES:]
        return "\n".join(["; the end of its log:", *(f"  {line}" for line in lines)]) if lines else "; its log is empty"


class ProcessGroup:
    """The guard, its process group and its directory for logs and configuration, which only this user can read.

    The children are in the guard's group and not in the command's, so Ctrl-C in a terminal reaches the command alone.
    """

    def __init__(self) -> None:
        """Start the guard and learn its directory."""
        pipe, command = subprocess.PIPE, ["/bin/sh", "-c", GUARD]
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, process_group=0)
        line = process.stdout.readline() if process.stdout else b""
        self.directory = Path(os.fsdecode(line.rstrip(b"\n")))
        #: To be checked like all others: without it they might outlive this command.
        self.guard = Child("The guard process", process, self.directory / "guard.log")

    def start(self, name: str, log_name: str, command: Sequence[str | Path], environ: Mapping[str, str]) -> Child:
        """Start a child in the group, with its whole environment, and a log of this name without ``.log``.

        Raises `ChildEnded` where the group is gone with its guard, `Unusable` where the command cannot be run.
        """
        self.guard.check()
        log = self.directory / f"{log_name}.log"
        try:
            with log.open("wb") as out:
                streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": subprocess.STDOUT}
                process = subprocess.Popen(command, env=environ, process_group=self.guard.process.pid, **streams)
        except OSError as error:
            self.guard.check()  # the group went with its guard in this moment
            raise Unusable(problem=f"{command[0]} cannot be run: {(error.strerror or str(error)).lower()}") from None
        return Child(name, process, log)

    def close(self) -> None:
        """Kill what is left in the group, and remove the directory."""
        with suppress(ProcessLookupError, PermissionError):  # macOS says EPERM for a group of zombies
            os.killpg(self.guard.process.pid, signal.SIGKILL)
        self.guard.process.communicate()
        shutil.rmtree(self.directory, ignore_errors=True)


def stop(children: Iterable[Child], grace: float, hurried: Callable[[], bool]) -> None:
    """Ask children to end, and kill those that are left after some seconds of grace, or once somebody is in a hurry."""
    left = [child for child in children if child.running]
    for child in left:
        child.process.terminate()
    deadline = time.monotonic() + grace
    while any(child.running for child in left) and time.monotonic() < deadline and not hurried():
        time.sleep(TICK)
    for child in left:
        child.process.kill()
        child.process.wait()


class Interrupts:
    """Ctrl-C, SIGTERM and SIGHUP: the first ends the work as a KeyboardInterrupt, a later one hurries the ending."""

    seen = hurried = ending = False

    def check(self) -> None:
        """Raise again what was raised where nobody let it through, in a destructor for instance."""
        if self.seen and not self.ending:
            raise KeyboardInterrupt

    def on_signal(self, *_: object) -> None:
        """Raise, or hurry: once the clearing up has begun (`ending`) an exception would cut it short."""
        if self.seen or self.ending:
            self.hurried = True
            return
        self.seen = True
        raise KeyboardInterrupt


@contextmanager
def interruptible() -> Iterator[Interrupts]:
    """Run a block that the signals may end; then say so in one line and exit with 130."""
    interrupts = Interrupts()
    for number in SIGNALS:
        # Not those that the command was started to ignore (nohup).
        if number is signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupts.on_signal)
    try:
        yield interrupts
    except KeyboardInterrupt:
        click.echo("Stopped; nothing is left running.", err=True)
        sys.exit(INTERRUPTED)
    finally:
        # The process is about to exit, and a traceback would be all that a further signal achieves.
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
