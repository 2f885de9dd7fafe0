"""What a soak runs on: two servers, the simulated API, workers and a web app, each in a process of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
import urllib.request
from collections import Counter
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from kit.waiting import wait_until
from soaking.servers import Pair

from demo.processes import Child, ProcessGroup

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Seconds for a process to start or to end, on a machine with a load of twenty.
IN_TIME_S = 240.0

#: Calls per minute that the API lets pass; the lanes learn it. And how it behaves when all is well.
RPM = 1_500
WELL = {
    "latency": 0.4,
    "jitter": 0.3,
    "tokens_per_second": 40,
    "server_error_rate": 0.01,
    "overloaded_rate": 0.01,
    "drop_mid_stream_rate": 0.03,
    "outage": False,
}

#: Names of the workers, with their lanes and slots. A veteran lives as long as the run; the others get killed.
VETERANS = {"critical": ("critical", 8), "veteran": ("critical,normal,batch", 10)}
VICTIMS = 2

#: What differs from line to line of a log.
NAMES = re.compile(r"\[[^\]]*\]|[0-9a-f]{8}-[0-9a-f-]{27,}|\b[a-z_]+-\d+\b|0x[0-9a-f]+|\d+(\.\d+)?")


class Ground:
    """A context manager; nothing of it is left when the block ends, however it ends."""

    def __init__(self, rate: float) -> None:
        self._rate, self._stack, self._numbers = rate, ExitStack(), count(1)
        self.workers: dict[str, Child] = {}
        self._api_url = ""

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._group = ProcessGroup()
            stack.callback(self._group.close)
            self.pair = stack.enter_context(Pair(self._group.directory))
            options = [f"--{name.replace('_', '-')}={value}" for name, value in WELL.items() if value is not False]
            self.api = self._start("api", "demo.simulator", "--port=0", f"--rpm={RPM}", *options)
            wait_until(lambda: "}" in self._said(self.api), "the API is there", IN_TIME_S)
            self._api_url = json.loads(self._said(self.api))["url"]
            started = [self.start_worker(name) for name in (*VETERANS, *["victim"] * VICTIMS)]
            for name in started:
                self.wait_until_ready(name)
            self.web = self._start("web", "soaking.traffic", f"--rate={self._rate}")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start_worker(self, name: str = "victim") -> str:
        """Start a worker and return its name."""
        queues, slots = VETERANS.get(name, ("critical,normal,batch", 20))
        name = name if name in VETERANS else f"{name}-{next(self._numbers)}"
        options = ("-Q", queues, "-c", str(slots), "-n", f"{name}@%h", "-l", "INFO")
        self.workers[name] = self._start(name, "celery", "-A", "soaking.project", "worker", *options)
        return name

    def wait_until_ready(self, name: str) -> None:
        """Wait for a worker."""
        child = self.workers[name]

        def ready() -> bool:
            child.check()
            return " ready." in self._said(child)

        try:
            wait_until(ready, f"{name} is ready", IN_TIME_S)
        except AssertionError as exc:
            raise AssertionError(f"{exc}{child.tail()}") from exc

    def victims(self) -> list[str]:
        """Return the workers that may be killed, the oldest first."""
        return [name for name in self.workers if name not in VETERANS]

    def lines(self, position: int) -> tuple[int, list[dict[str, Any]]]:
        """Return what the web app has printed behind a position, and the next position."""
        with self.web.log.open("rb") as log:
            log.seek(position)
            text = log.read()
        whole = text[: text.rfind(b"\n") + 1]
        return position + len(whole), [json.loads(line) for line in whole.splitlines() if line.startswith(b"{")]

    def control(self, **changes: Any) -> None:
        """Change how the API behaves."""
        self._ask("PATCH", "/_control", changes)

    def calls(self, ended_after: float) -> list[dict[str, Any]]:
        """Return the calls that the API has ended after a time."""
        return list(self._ask("GET", f"/_calls?ended_after={ended_after!r}")["calls"])

    def processes(self) -> Mapping[str, int]:
        """Return the processes that are there, by their names: with a new one a name is a new one."""
        children = {**self.workers, "web": self.web, "api": self.api}
        found = {name: child.process.pid for name, child in children.items()}
        for server in (*self.pair.servers, *self.pair.watchers):
            if server.process is not None:
                found[f"server {server.port}, {server.process.pid}"] = server.process.pid
        return found

    def complaints(self) -> Counter[str]:
        """Return the lines of errors in all logs but the servers', without what tells one from another."""
        found: Counter[str] = Counter()
        for log in self._group.directory.glob("*.log"):
            with log.open(errors="replace") as lines:
                found.update(
                    NAMES.sub("…", line.strip())[:200]
                    for line in lines
                    if "ERROR" in line or "CRITICAL" in line or "Error: " in line
                )
        return found

    def keep_logs(self, folder: Path) -> None:
        """Copy all logs."""
        folder.mkdir(parents=True, exist_ok=True)
        for log in self._group.directory.glob("*.log"):
            shutil.copy(log, folder)

    def _said(self, child: Child) -> str:
        return child.log.read_text(errors="replace")

    def _start(self, name: str, *module: str) -> Child:
        theirs = {key: value for key, value in os.environ.items() if not key.startswith(("CELERY_", "EZAI_", "LANES_"))}
        path = os.pathsep.join(map(str, (Path(__file__).parents[1], Path(__file__).parents[2])))
        ours = dict.fromkeys(("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"), self.pair.url)
        ours |= {"EZAI_API_KEY": "soak", "EZAI_BASE_URL": self._api_url}
        environ = {**theirs, **ours, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
        return self._group.start(name, name, [sys.executable, "-m", *module], environ)

    def _ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self._api_url}{path}", data, method=method)  # noqa: S310 - our own loopback URL
        with urllib.request.urlopen(request, timeout=IN_TIME_S) as answer:  # noqa: S310
            return dict(json.load(answer))


def stop(child: Child) -> None:
    """End a process as an operator does, and kill it when it does not end."""
    child.process.terminate()
    end = time.monotonic() + IN_TIME_S
    while child.running and time.monotonic() < end:
        time.sleep(0.1)
    child.process.kill()
    child.process.wait()
