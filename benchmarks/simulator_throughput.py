"""What the simulated EzAI can carry: whole messages per second, and how late the tokens of many streams are.

The server is a process of its own and so is this load: neither has to share a core on a machine with two.
Prints one line for people on stderr and one of JSON on stdout.

    python benchmarks/simulator_throughput.py --seconds 5 --streams 200 --pace 30
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

# As many as keep one core busy without a queue that would only measure itself.
CONNECTIONS = 16
# Limits that are never reached, so that their bookkeeping is part of what is measured.
NEVER_REACHED = ("--rpm", "1e9", "--itpm", "1e12", "--otpm", "1e12")
DELTA = b"event: content_block_delta"


def request(*, stream: bool, max_tokens: int) -> bytes:
    """Give a small request as it goes over the wire."""
    messages = [{"role": "user", "content": "Is this review good or bad? It arrived late, but it works."}]
    params = {"model": "claude-haiku-4-5", "max_tokens": max_tokens, "stream": stream, "messages": messages}
    body = json.dumps(params).encode()
    head = f"POST /v1/messages HTTP/1.1\r\nHost: ezai\r\nx-api-key: bench\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Caller(asyncio.Protocol):
    """A connection that sends the next request as soon as it has the answer to the last."""

    def __init__(self, payload: bytes) -> None:
        self.answers = 0
        self._payload = payload
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._payload)

    def data_received(self, data: bytes) -> None:
        """Count the answer when all of it is there."""
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if separator and len(body) >= int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0]):
            assert head.startswith(b"HTTP/1.1 200"), head
            self.answers += 1
            self._received = b""
            self._transport.write(self._payload)

    def stop(self) -> None:
        """Hang up."""
        self._transport.close()


class Listener(asyncio.Protocol):
    """A connection that notes when each token of one stream comes."""

    def __init__(self, payload: bytes) -> None:
        self.begun = 0.0
        self.tokens: list[float] = []
        self.done = asyncio.get_running_loop().create_future()
        self._payload = payload

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the stream."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._payload)

    def data_received(self, data: bytes) -> None:
        """Note the time; each event is small enough to come in one piece."""
        now = time.perf_counter()
        self.begun = self.begun or now
        self.tokens += [now] * data.count(DELTA)
        if b"event: message_stop" in data:
            self._transport.close()
            self.done.set_result(None)


@contextmanager
def server(*options: str) -> Iterator[tuple[str, int]]:
    """Run the simulated API in a process of its own, and give its host and port."""
    command = [sys.executable, "-m", "demo.simulator", "--exit-with-parent", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = urlsplit(json.loads(process.stdout.readline())["url"])
        try:
            yield str(url.hostname), int(url.port or 0)
        finally:
            process.terminate()


def children_cpu() -> float:
    """Give the seconds of CPU that ended child processes have used."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


async def whole_messages(address: tuple[str, int], seconds: float) -> float:
    """Give the messages per second."""
    loop, payload = asyncio.get_running_loop(), request(stream=False, max_tokens=64)
    pairs = [await loop.create_connection(lambda: Caller(payload), *address) for _ in range(CONNECTIONS)]
    begun = time.perf_counter()
    await asyncio.sleep(seconds)
    rate = sum(caller.answers for _, caller in pairs) / (time.perf_counter() - begun)
    for _, caller in pairs:
        caller.stop()
    return rate


async def streams(address: tuple[str, int], number: int, tokens: int, stagger: float) -> list[Listener]:
    """Open streams, evenly over `stagger` seconds, and hear them to their ends."""
    loop, payload = asyncio.get_running_loop(), request(stream=True, max_tokens=tokens)
    listeners = []
    for _ in range(number):
        _, listener = await loop.create_connection(lambda: Listener(payload), *address)
        listeners.append(listener)
        await asyncio.sleep(stagger / number)
    await asyncio.gather(*(listener.done for listener in listeners))
    return listeners


def lags(listeners: list[Listener], pace: float) -> dict[str, float]:
    """Give how many ms the tokens came after they were due, counted from each stream's first byte."""
    late = [
        1_000 * (moment - listener.begun - number / pace)
        for listener in listeners
        for number, moment in enumerate(listener.tokens, 1)
    ]
    percentiles = statistics.quantiles(late, n=1_000)
    picks = {"p50": percentiles[499], "p99": percentiles[989], "p99.9": percentiles[998], "max": max(late)}
    return {name: round(value, 2) for name, value in picks.items()}


def measure_messages(seconds: float) -> dict[str, Any]:
    """Measure whole messages."""
    with server(*NEVER_REACHED) as address:
        rate = asyncio.run(whole_messages(address, seconds))
    return {"per_second": round(rate), "connections": CONNECTIONS}


def measure_streams(number: int, pace: float, seconds: float, stagger: float) -> dict[str, Any]:
    """Measure streams that begin within `stagger` seconds; 0 lets all their tokens fall due together."""
    tokens, used, begun = round(pace * seconds), children_cpu(), time.perf_counter()
    options = ("--tokens-per-second", str(pace), "--output-tokens", str(tokens))
    with server(*options, *NEVER_REACHED) as address:
        listeners = asyncio.run(streams(address, number, tokens, stagger))
    core = (children_cpu() - used) / (time.perf_counter() - begun)
    assert all(len(listener.tokens) == tokens for listener in listeners)
    return {"streams": number, "tokens_per_second": pace, "lag_ms": lags(listeners, pace), "core": round(core, 2)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each measurement")
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--pace", type=float, default=30.0, help="tokens per second of each stream")
    options = parser.parse_args()
    figures = {
        "messages": measure_messages(options.seconds),
        "streams_spread": measure_streams(options.streams, options.pace, options.seconds, stagger=1.0),
        "streams_together": measure_streams(options.streams, options.pace, options.seconds, stagger=0.0),
    }
    spread, together = figures["streams_spread"], figures["streams_together"]
    sys.stderr.write(
        f"{figures['messages']['per_second']:,} messages/s; {options.streams} streams at {options.pace:g} tokens/s: "
        f"p99 {spread['lag_ms']['p99']} ms late ({together['lag_ms']['p99']} ms when all begin together), "
        f"{spread['core']:.0%} of a core\n"
    )
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
