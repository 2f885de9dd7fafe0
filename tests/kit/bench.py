"""What every benchmark of the broker does: a broker of its own, a line for people, or one JSON object."""

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kit.broker import Broker
from kit.server import Server


@contextmanager
def bench_broker() -> Iterator[Broker]:
    """A broker in memory, and an event log on another server, so that writing it costs the broker nothing."""
    with tempfile.TemporaryDirectory(prefix="broker-bench-") as name:
        folder = Path(name)
        server, notes = Server(folder / "broker", durable=False), Server(folder / "event_log", durable=False)
        with server, notes, Broker(folder, server.url, notes.url) as broker:
            yield broker


def main(doc: str, measure: Callable[[argparse.Namespace], Any], say: Callable[[Any], str], **options: Any) -> None:
    """Measure and print.

    Args:
        doc: what is measured.
        measure: does it, with the options.
        say: makes lines for people of its figures.
        options: name -> default, or (default, help).
    """
    os.environ.setdefault("EZAI_API_KEY", "test-key")
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    for name, given in options.items():
        default, what = given if isinstance(given, tuple) else (given, None)
        kind = {"action": "store_true"} if default is False else {"type": type(default), "default": default}
        parser.add_argument(f"--{name.replace('_', '-')}", help=what, **kind)
    arguments = parser.parse_args()
    figures = measure(arguments)
    print(json.dumps(figures) if arguments.json else say(figures))  # noqa: T201 - a benchmark's purpose


def percentiles(values: list[float]) -> dict[str, float]:
    """Return p50, p95 and the maximum."""
    ordered = sorted(values)
    return {
        "p50": round(ordered[len(ordered) // 2], 3),
        "p95": round(ordered[int(len(ordered) * 0.95)], 3),
        "max": round(ordered[-1], 3),
    }
