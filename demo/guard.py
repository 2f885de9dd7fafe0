"""The guard: a process that outlives the command that started it just long enough to end all the command's children.

It leads a process group into which every child is started, and reads a pipe that only the command holds open. When
the command is gone, however it went, the pipe ends, and the guard ends the group and removes its directory.

A child between its fork and its exec holds the pipe, too. It joins the group before it closes the pipe (the order in
CPython's ``_posixsubprocess.c``), so when the pipe ends there is no child left that the group does not have yet.

It runs as a script of its own, by path and with the standard library only: it is there in 30 ms.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from contextlib import suppress

#: Seconds for the children to end by themselves once their command is dead: nobody waits for their work any more.
GRACE = 3.0
#: Seconds for the kernel to clear away what was killed.
KILLED = 1.0
#: Seconds between two looks at the group.
TICK = 0.02

PREFIX = "ezai-lanes-"


def main() -> None:
    """Make the directory, tell its path, wait for the command's end and clear up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    # The guard makes the directory, so that a command killed at any time leaves none behind.
    directory = tempfile.mkdtemp(prefix=PREFIX)
    with suppress(BrokenPipeError):
        os.write(sys.stdout.fileno(), f"{directory}\n".encode())
    while os.read(sys.stdin.fileno(), 1024):
        pass
    end_group(_step_out_of_the_group())
    shutil.rmtree(directory, ignore_errors=True)


def _step_out_of_the_group() -> int:
    """Return the group that is to end, from outside of it: only there "is anybody left?" has a portable answer.

    A leader cannot leave its group, its child can.
    """
    group = os.getpgrp()
    if os.fork():
        os._exit(0)
    os.setpgid(0, 0)
    return group


def end_group(group: int) -> None:
    """Ask every process of a group to end, and kill what is still there after the grace."""
    for number, seconds in ((signal.SIGTERM, GRACE), (signal.SIGKILL, KILLED)):
        if not _send(group, number):
            return
        deadline = time.monotonic() + seconds
        while _send(group, 0):
            if time.monotonic() > deadline:
                break
            time.sleep(TICK)


def _send(group: int, number: int) -> bool:
    """Send a signal, and say whether anybody was there; macOS answers EPERM for a group of zombies."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    main()
