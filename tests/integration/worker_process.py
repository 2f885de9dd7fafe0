"""A worker as an operator starts it: a process of its own, with its output in a file."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Seconds until a worker is ready: importing Celery and the SDK on a machine that is busy with other tests.
START_DEADLINE = 60.0


class Worker:
    """A running ``celery worker``."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        """Keep the process and the file with its output."""
        self.process = process
        self.log = log

    def output(self) -> str:
        """Return what the worker has printed so far."""
        return self.log.read_text(errors="replace")

    def wait_until_it_says(self, text: str, deadline: float = START_DEADLINE) -> None:
        """Wait for a piece of output; fail with all of it when the worker ends or the deadline passes."""
        end = time.monotonic() + deadline
        while text not in self.output():
            assert self.process.poll() is None, f"the worker ended early:\n{self.output()}"
            assert time.monotonic() < end, f"{text!r} was not said:\n{self.output()}"
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGTERM, deadline: float = 30.0) -> int:
        """Signal the worker and return its exit code."""
        self.process.send_signal(how)
        return self.process.wait(deadline)


@contextmanager
def worker(
    tmp_path: Path, *arguments: str, app: str = "celery_app", ready: bool = True, **env: str
) -> Iterator[Worker]:
    """Run ``celery -A app worker …`` with these variables besides the environment, until the block ends."""
    log = tmp_path / f"worker-{time.monotonic_ns()}.log"
    command = [sys.executable, "-m", "celery", "-A", app, "worker", "-l", "INFO", *arguments]
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("EZAI_", "LANES_", "CELERY_"))
    }
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**inherited, **env}, cwd=tmp_path)
    running = Worker(process, log)
    try:
        if ready:
            running.wait_until_it_says(" ready.")
        yield running
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)
