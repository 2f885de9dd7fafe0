"""How long a critical job waits with 1,000 and with 1,000,000 jobs queued in batch."""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from broker_kit.bench import bench_yard, main, percentiles

if TYPE_CHECKING:
    import argparse

    from broker_kit.yard import Yard

LIST = "batch\x06\x166"
SLOTS, EVERY_S = 20, 0.02

#: Puts copies of a job into a list, each with its own tag and id. KEYS[1] list; ARGV: text, placeholder, from, to.
FILL = """
for n = tonumber(ARGV[3]), tonumber(ARGV[4]) - 1 do
  redis.call('LPUSH', KEYS[1], (string.gsub(ARGV[1], ARGV[2], string.format('%032d', n))))
end
"""
CHUNK = 20_000
PLACEHOLDER = "a" * 32


def template(yard: Yard) -> str:
    """Return a batch job of 20 ms whose tag and id are the placeholder."""
    yard.send("kit.nap", EVERY_S, task_id=PLACEHOLDER, argsrepr="", kwargsrepr="", ignore_result=True)
    message = json.loads(yard.client.rpop(LIST))
    return json.dumps(message).replace(message["properties"]["delivery_tag"], PLACEHOLDER)


def fill(yard: Yard, text: str, first: int, last: int) -> None:
    """Queue batch jobs with the numbers from `first` up to `last`."""
    for n in range(first, last, CHUNK):
        yard.client.eval(FILL, 1, LIST, text, PLACEHOLDER, n, min(last, n + CHUNK))


def waits_ms(yard: Yard, name: str, jobs: int) -> list[float]:
    """Return how long critical jobs wait that come one by one while all slots work on batch."""
    sent: dict[str, float] = {}
    for n in range(jobs):
        job = f"{name}-{n}"
        sent[job] = time.time()
        yard.send("kit.job", job, queue="critical", ignore_result=True)
        time.sleep(EVERY_S)
    yard.diary.wait_for("end", sent, 60)
    return [(entry.at - sent[entry.job]) * 1000 for entry in yard.diary.read("start") if entry.job in sent]


def measure(arguments: argparse.Namespace) -> Any:
    """Return the waits with a short and a long backlog, measured in turns."""
    few, many = 1_000, arguments.backlog
    waits: dict[int, list[float]] = {few: [], many: []}
    medians: dict[int, list[float]] = {few: [], many: []}
    with bench_yard() as yard:
        text = template(yard)
        for turn in range(arguments.turns):
            for backlog in (few, many):
                worker = yard.worker(f"w-{turn}-{backlog}", slots=SLOTS, queues="critical")
                fill(yard, text, 0, backlog)
                yard.app.control.add_consumer("batch", destination=[worker.name], reply=True, timeout=10, limit=1)
                # A short backlog would be empty too soon: it is filled up as it is worked on.
                got: list[float] = []
                for part in range(arguments.jobs // 25):
                    got += waits_ms(yard, f"{turn}-{backlog}-{part}", 25)
                    if backlog == few:
                        fill(yard, text, few * (part + 1), few * (part + 1) + few - yard.client.llen(LIST))
                waits[backlog] += got
                medians[backlog].append(statistics.median(got))
                worker.kill()
                yard.client.flushdb()
    rows = {str(backlog): percentiles(values) for backlog, values in waits.items()}
    # Of several turns' medians the least is the one that nothing else on the machine disturbed.
    ratio = min(medians[many]) / min(medians[few])
    return {"wait_ms": rows, "ratio": round(ratio, 3)}


def say(figures: Any) -> str:
    """Return a line per backlog."""
    lines = [
        f"{int(backlog):,} jobs in batch: a critical job waits {row['p50']} ms (p95 {row['p95']}, max {row['max']})"
        for backlog, row in figures["wait_ms"].items()
    ]
    return "\n".join([*lines, f"ratio of the least medians: {figures['ratio']}"])


if __name__ == "__main__":
    main(__doc__, measure, say, backlog=1_000_000, jobs=200, turns=3)
