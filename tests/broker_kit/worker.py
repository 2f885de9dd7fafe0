"""A worker as an operator starts it: ``celery -A … worker`` in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from broker_kit.event_log import EventLog
from broker_kit.waiting import wait_until

KIT = Path(__file__).parents[1]

#: Seconds that a worker may take to start, and to stop once it has nothing to do, on a busy machine.
TO_START, TO_STOP = 60.0, 60.0


class Worker:
    """One worker; a context manager that leaves no process behind."""

    def __init__(
        self,
        folder: Path,
        name: str,
        *,
        broker_url: str,
        event_log_url: str,
        app: str = "broker_kit.project",
        queues: str | None = "critical,normal,batch",
        slots: int = 4,
        conf: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        options: Sequence[str] = ("--without-mingle", "--without-gossip"),
        loglevel: str = "WARNING",
    ) -> None:
        """Start it; `wait_until_ready` when it has to be there."""
        self.name = f"{name}@kit"
        self.log = folder / f"{name}.log"
        self.event_log = EventLog(event_log_url)
        self._started = time.time()
        command = [
            sys.executable,
            "-m",
            "celery",
            "-A",
            app,
            "worker",
            "-n",
            self.name,
            "-c",
            str(slots),
            "-l",
            loglevel,
        ]
        # A worker for lanes asks the command line for its pool; a project's setting is for its own queues.
        pool = (conf or {}).get("worker_pool")
        command += ["-P", pool] if pool else []
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(KIT), os.environ.get("PYTHONPATH", "")])),
            "CELERY_BROKER_URL": broker_url,
            "EZAI_API_KEY": "test-key",
            "EZAI_BASE_URL": "http://127.0.0.1:9",
            "KIT_EVENT_LOG_URL": event_log_url,
            "KIT_CONF": json.dumps(conf or {}),
            **(env or {}),
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *(["-Q", queues] if queues else []), *options],
                cwd=folder,
                env=environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def wait_until_ready(self) -> Self:
        """Return once it consumes."""
        wait_until(self._is_ready, f"{self.name} is ready; its log: {self.log}", TO_START)
        return self

    def _is_ready(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"{self.name} ended with {self.process.returncode}:\n{self.text()}")
        return any(line.worker == self.name and line.at > self._started for line in self.event_log.read("ready"))

    def text(self) -> str:
        """Return its log."""
        return self.log.read_text(errors="replace")

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
        try:
            return self.wait_until_ready()
        except BaseException:
            self.kill()
            raise

    def __exit__(self, *_: object) -> None:
        """Leave nothing running."""
        self.kill()
