"""A worker as an operator starts it: ``celery -A … worker`` in a process of its own, with its output in a file."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from kit.event_log import EventLog
from kit.waiting import wait_until

TESTS = Path(__file__).parents[1]

#: Where a worker finds the tests' projects, and the packages as they are here.
PATHS = os.pathsep.join(map(str, (TESTS, TESTS / "integration", TESTS.parent)))

#: Seconds that a worker may take to start, and to stop once it has nothing to do, on a busy machine.
TO_START, TO_STOP = 60.0, 60.0


class WorkerProcess:
    """A running ``celery worker``, which leads a group of processes; a context manager that leaves none behind."""

    def __init__(self, folder: Path, app: str, *arguments: str, **env: str) -> None:
        """Start it, with these variables besides those that configure neither Celery nor the lanes."""
        self.log = folder / f"worker-{time.monotonic_ns()}.log"
        command = [sys.executable, "-m", "celery", "-A", app, "worker", *arguments]
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("EZAI_", "LANES_", "CELERY_"))
        }
        paths = filter(None, [env.pop("PYTHONPATH", ""), PATHS, os.environ.get("PYTHONPATH", "")])
        env = {**kept, **env, "PYTHONPATH": os.pathsep.join(paths)}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=folder, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )

    def output(self) -> str:
        """Return what it has printed so far."""
        return self.log.read_text(errors="replace")

    def wait_until_it_says(self, text: str, seconds: float = TO_START) -> None:
        """Wait for a piece of output; fail with all of it when the worker ends before."""
        wait_until(lambda: self.check() and text in self.output(), f"{text!r} is said in {self.log}", seconds)

    def check(self) -> bool:
        """Return True; fail with all of its output if it has ended."""
        assert self.process.poll() is None, f"the worker ended with {self.process.returncode}:\n{self.output()}"
        return True

    def send(self, signal_number: int) -> None:
        """Send a signal to the worker's main process."""
        self.process.send_signal(signal_number)

    def kill(self) -> None:
        """End it and the processes of its pool at once, as an operating system out of memory does."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(TO_STOP)

    def stop(self, signal_number: int = signal.SIGTERM, seconds: float = TO_STOP) -> int:
        """Ask it to end and return its exit code."""
        self.send(signal_number)
        return self.process.wait(seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nothing running."""
        self.kill()


@contextmanager
def worker(
    folder: Path, *arguments: str, app: str = "celery_app", ready: bool = True, **env: str
) -> Iterator[WorkerProcess]:
    """Run ``celery -A app worker …`` with these variables besides the environment, until the block ends."""
    with WorkerProcess(folder, app, "-l", "INFO", *arguments, **env) as started:
        if ready:
            started.wait_until_it_says(" ready.")
        yield started


class Worker(WorkerProcess):
    """One of the project `kit.project`, which tells in the event log that it is ready."""

    def __init__(
        self,
        folder: Path,
        name: str,
        *,
        broker_url: str,
        event_log_url: str,
        app: str = "kit.project",
        queues: str | None = "critical,normal,batch",
        slots: int = 4,
        conf: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        options: Sequence[str] = ("--without-mingle", "--without-gossip"),
        loglevel: str = "WARNING",
    ) -> None:
        """Start it; `wait_until_ready` when it has to be there."""
        self.name = f"{name}@kit"
        self.event_log = EventLog(event_log_url)
        self._started = time.time()
        # A worker for lanes asks the command line for its pool; a project's setting is for its own queues.
        pool = (conf or {}).get("worker_pool")
        arguments = ["-n", self.name, "-c", str(slots), "-l", loglevel, *(["-P", pool] if pool else [])]
        variables = {
            "CELERY_BROKER_URL": broker_url,
            "EZAI_API_KEY": "test-key",
            "EZAI_BASE_URL": "http://127.0.0.1:9",
            "KIT_EVENT_LOG_URL": event_log_url,
            "KIT_CONF": json.dumps(conf or {}),
            **(env or {}),
        }
        super().__init__(folder, app, *arguments, *(["-Q", queues] if queues else []), *options, **variables)

    def wait_until_ready(self) -> Self:
        """Return once it consumes."""
        wait_until(lambda: self.check() and self._is_ready(), f"{self.name} is ready; its log: {self.log}", TO_START)
        return self

    def _is_ready(self) -> bool:
        return any(line.worker == self.name and line.at > self._started for line in self.event_log.read("ready"))

    def __enter__(self) -> Self:
        try:
            return self.wait_until_ready()
        except BaseException:
            self.kill()
            raise
