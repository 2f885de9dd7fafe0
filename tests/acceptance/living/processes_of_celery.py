"""Real `celery` processes of a living project: started, waited for, and ended whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: Celery refuses pickle to a worker of root's, as in a container's test run; here every message is the suite's own.
ALLOWED = {"C_FORCE_ROOT": "1"}

#: Seconds for a process to be ready, and for a job to be done, on a machine that does other things, too.
START_DEADLINE = 60.0
JOB_DEADLINE = 30.0


def until(condition: Callable[[], Any], what: str, seconds: float = JOB_DEADLINE) -> Any:
    """Wait for a condition and return what it found."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)
    return found


#: Ends a process group when this process has ended, however it did: then the pipe that the shell reads is closed.
_KILL_WHEN_WE_ARE_GONE = 'cat >/dev/null; kill -KILL -- "-$0"'


class Process:
    """One `celery -A … command` in a process group of its own."""

    def __init__(self, app: str, *arguments: str, log: Path, cwd: Path, **env: str) -> None:
        self.log = log
        command = [sys.executable, "-m", "celery", "-A", app, *arguments]
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                command, stdout=out, stderr=out, cwd=cwd, env={**os.environ, **ALLOWED, **env}, start_new_session=True
            )
        watch = ["sh", "-c", _KILL_WHEN_WE_ARE_GONE, str(self._process.pid)]
        self._watcher = subprocess.Popen(watch, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)

    @property
    def text(self) -> str:
        """What it has written."""
        return self.log.read_text(errors="replace")

    def wait_for(self, words: str) -> None:
        """Wait until it says so."""
        deadline = time.monotonic() + START_DEADLINE
        while words not in self.text:
            assert self._process.poll() is None, f"ended with {self._process.returncode}:\n{self.text[-3000:]}"
            assert time.monotonic() < deadline, f"no {words!r} in:\n{self.text[-3000:]}"
            time.sleep(0.05)

    def kill(self) -> None:
        """End it and its children at once, as a power failure would."""
        self._watcher.kill()
        self._watcher.communicate()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """Ask it to end."""
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(START_DEADLINE)
        self.kill()


@contextmanager
def process(
    app: str, *arguments: str, log: Path, cwd: Path, ready: str, gently: bool = True, **env: str
) -> Iterator[Process]:
    """Run a `celery` command until the block ends; a gentle end takes a worker two seconds."""
    running = Process(app, *arguments, log=log, cwd=cwd, **env)
    try:
        running.wait_for(ready)
        yield running
    finally:
        (running.stop if gently else running.kill)()


def command(app: str, *arguments: str, cwd: Path, **env: str) -> str:
    """Run a `celery` command to its end and return what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", app, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **env},
        check=False,
        timeout=START_DEADLINE,
    )
    assert done.returncode == 0, f"{arguments}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


def stats(app: Any, node: str) -> dict[str, Any]:
    """Return what a worker says of itself in `celery inspect stats`."""
    answer = until(lambda: app.control.inspect([node], timeout=2).stats(), f"{node} answers")
    return dict(answer[node])
