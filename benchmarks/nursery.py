"""Workers that cost next to nothing to start, so that many can be killed.

A real worker takes 3 s of CPU to import what it needs. Here that is done once, in a server that is forked for each of
them. What is forked is the whole of ``celery worker``: a process and a session of its own, with its threads,
connections and exit.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

#: What a worker imports; of the SDK and Celery, what they import when they are first used, too.
PRELOADED = (
    "__main__",
    "anthropic.resources.messages",
    "anthropic.types",
    "celery.__main__",
    "celery.app.control",
    "celery.apps.worker",
    "celery.backends.redis",
    "celery.bin.celery",
    "celery.concurrency.thread",
    "celery.worker.consumer",
    "celery.worker.pidbox",
    "celery_app.broker.consumer",
    "celery_app.broker.transport",
    "celery_app.metrics.recorder",
    "celery_app.results.backend",
    "celery_app.worker",
    "httpcore2",
    "tasks",
    "tasks.clients",
    "tasks.ended",
    "tasks.endings",
    "tasks.relay",
    "tasks.start",
    "tasks.warmup",
    "truststore",
)

#: Seconds for a worker to be ready, and to be gone once it was killed.
TO_START, TO_END = 60.0, 30.0

#: Seconds between two looks.
LOOK_EVERY = 0.02

#: Processes of `multiprocessing` know nothing of threads: two that look at once may read the exit code of neither.
_lock = threading.Lock()
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(list(PRELOADED))


class Forked:
    """One worker.

    Attributes:
        name: of the node, without its host.
        log: what it has printed.
    """

    def __init__(self, folder: Path, name: str, arguments: Sequence[str], env: dict[str, str]) -> None:
        """Start it."""
        self.name, self.log = name, folder / f"{name}.log"
        self.log.touch()
        command = ["celery", "-A", "celery_app", "worker", "-n", f"{name}@battle", "-l", "INFO", *arguments]
        self._process = _context.Process(target=_work, args=(str(self.log), command, env))
        with _lock:
            self._process.start()

    def wait_until_ready(self) -> None:
        """Return once it consumes; raise RuntimeError if it does not within a minute."""
        end = time.monotonic() + TO_START
        while " ready." not in self.log.read_text(errors="replace"):
            if not self.is_up() or time.monotonic() > end:
                raise RuntimeError(f"{self.name} did not start:\n{self.log.read_text(errors='replace')[-2000:]}")
            time.sleep(LOOK_EVERY)

    def is_up(self) -> bool:
        """Return whether it runs."""
        with _lock:
            return self._process.is_alive()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it is still there."""
        with suppress(ProcessLookupError):
            os.kill(self._process.pid or 0, number)

    def ended_within(self, seconds: float) -> bool:
        """Wait for its end, and return whether it has come."""
        end = time.monotonic() + seconds
        while self.is_up() and time.monotonic() < end:
            time.sleep(LOOK_EVERY)
        return not self.is_up()

    def kill(self) -> None:
        """End it at once, and wait until it is gone."""
        self.send(signal.SIGKILL)
        self.ended_within(TO_END)

    @property
    def killed(self) -> bool:
        """Whether it died of SIGKILL, which only the operating system knows."""
        return self._process.exitcode == -signal.SIGKILL


def _work(log: str, command: list[str], env: dict[str, str]) -> None:
    """Be the worker."""
    from celery.__main__ import main

    os.setsid()
    with Path(log).open("ab") as output:
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)
    os.environ.update(env)
    sys.argv = command
    try:
        main()
    finally:
        # As the interpreter's end, which a forked process leaves out.
        threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001
        atexit._run_exitfuncs()  # noqa: SLF001
