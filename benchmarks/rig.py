"""Broker, simulated API and workers for one measurement, each in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psutil
from redis import Redis

from demo import parts
from demo.processes import Child, ProcessGroup

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

#: Seconds for a process to be ready.
START_DEADLINE = 60.0


class Rig:
    """A context manager; nothing of it is left when the block ends, however it ends."""

    def __init__(self, *api_options: str) -> None:
        """Say how the API behaves: options of ``python -m demo.simulator``."""
        self._api_options = api_options
        self._exits = ExitStack()
        self.workers: dict[str, Child] = {}
        self._starting: dict[str, tuple[Child, Callable[[], bool]]] = {}

    def __enter__(self) -> Self:
        self._group = ProcessGroup()
        self._exits.callback(self._group.close)
        broker = parts.valkey(parts.valkey_binary(), self._group.directory)
        self.broker_url = str(broker.url)
        self._start("broker", broker.is_ready, *map(str, broker.command))
        self.wait_until_ready()
        self.redis = self._exits.enter_context(Redis.from_url(self.broker_url))
        api = [sys.executable, "-m", "demo.simulator", "--port", "0", *self._api_options]
        self._start("api", lambda: "}" in self.log("api").read_text(), *api)
        self.wait_until_ready()
        self.api_url: str = json.loads(self.log("api").read_text())["url"]
        return self

    def __exit__(self, *_: object) -> None:
        """Kill everything: nobody waits for work that has not been done."""
        self._exits.close()

    @property
    def environment(self) -> dict[str, str]:
        """What every process of the measurement needs."""
        return {"CELERY_BROKER_URL": self.broker_url, "EZAI_API_KEY": "bench", "EZAI_BASE_URL": self.api_url}

    def worker(self, name: str, *arguments: str, app: str = "celery_app", **env: str) -> subprocess.Popen[bytes]:
        """Start a Celery worker, and wait until it is ready."""
        self.begin_worker(name, *arguments, app=app, **env)
        self.wait_until_ready()
        return self.workers[name].process

    def begin_worker(self, name: str, *arguments: str, app: str, **env: str) -> None:
        """Start a Celery worker."""
        self.process(
            name, " ready.", "celery", "-A", app, "worker", "-n", f"{name}@%h", "-l", "INFO", *arguments, **env
        )

    def process(self, name: str, ready: str, *module: str, **env: str) -> None:
        """Start ``python -m module …`` as a worker, which is ready once its log says so."""
        is_ready = lambda: ready in self.log(name).read_text(errors="replace")  # noqa: E731
        self.workers[name] = self._start(name, is_ready, sys.executable, "-m", *module, **self.environment, **env)

    def wait_until_ready(self) -> None:
        """Wait for all that was started."""
        deadline = time.monotonic() + START_DEADLINE
        for name, (child, is_ready) in self._starting.items():
            while not is_ready():
                child.check()
                if time.monotonic() > deadline:
                    raise SystemExit(f"{name} did not start{child.tail()}")
                time.sleep(0.02)
        self._starting.clear()

    def doomed(self, name: str) -> Callable[[], None]:
        """Return what kills a worker with all that it consists of, as a machine that loses its power does.

        It is looked up beforehand, for a look at all processes may take 100 ms, in which the worker would go on.
        """
        pids = [process.pid for process in self._tree(name)]

        def kill() -> None:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            self.workers[name].process.wait()

        return kill

    @property
    def folder(self) -> Path:
        """The folder of the logs, which goes with the rig."""
        return self._group.directory

    def log(self, name: str) -> Path:
        """Return the file with what a process says."""
        return self.folder / f"{name}.log"

    def logged(self, text: str) -> int:
        """Return how often the workers have said this."""
        return sum(self.log(name).read_text(errors="replace").count(text) for name in self.workers)

    def cpu_seconds(self) -> float:
        """Return what the workers and the broker have used since their start."""
        used = [each.cpu_times() for name in self.workers for each in self._tree(name)]
        return self.broker_cpu_seconds() + sum(each.user + each.system for each in used)

    def broker_cpu_seconds(self) -> float:
        """Return what the broker has used since its start."""
        used: Any = self.redis.info("cpu")
        return float(used["used_cpu_user"] + used["used_cpu_sys"])

    def memory_mb(self) -> float:
        """Return the memory that is the workers' own, their children's included; what a fork shares counts not."""
        return sum(each.memory_full_info().uss for name in self.workers for each in self._tree(name)) / 1e6

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

    def _tree(self, name: str) -> list[psutil.Process]:
        child = self.workers[name]
        if not child.running:
            return []
        root = psutil.Process(child.process.pid)
        return [root, *root.children(recursive=True)]

    def _start(self, name: str, is_ready: Callable[[], bool], *command: str, **env: str) -> Child:
        # Nothing of the caller's own lanes; the benchmarks can be imported.
        theirs = {key: value for key, value in os.environ.items() if not key.startswith(("CELERY_", "EZAI_", "LANES_"))}
        path = os.pathsep.join(map(str, (Path(__file__).parent, Path(__file__).parents[1])))
        environ = {**theirs, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **env}
        child = self._group.start(name, name, command, environ)
        self._starting[name] = (child, is_ready)
        return child


def quantiles(values: list[float]) -> dict[str, float]:
    """Return p50, p95, p99 and max, in milliseconds, of seconds."""
    ordered = sorted(values)
    at = lambda q: round(ordered[min(len(ordered) - 1, int(q * len(ordered)))] * 1000, 1)  # noqa: E731
    return {"p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "max": round(ordered[-1] * 1000, 1)}
