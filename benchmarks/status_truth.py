"""Whether `lanes status` tells the truth: its figures against what the simulated API has noted of each call.

5,000 jobs of all lanes, four workers. When a job was submitted is noted here, by its number, which the API notes, too:
so its wait is from then until its call arrived there, and the API knows how long the call took and how many ended.
Needs the extra `embedded`.
"""

from __future__ import annotations

import random
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from kit.bench import main
from pydantic import SecretStr
from rig import Rig

from celery_app import LANES, create_app
from celery_app.client import Client
from celery_app.metrics.stats import get_queue_stats
from celery_app.settings import Settings

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

#: Seconds that a call takes, and by how much more or less.
LATENCY, JITTER = 0.8, 0.5

#: Lane -> fraction of the jobs; each bursts now and then, so that it has waits to tell.
MIX = {"critical": 0.2, "normal": 0.3, "batch": 0.5}

#: Jobs of a lane that come at once.
BURST = 40

#: Seconds that the throughput is taken from, of which a look may miss the last: workers write once a second.
MINUTE, DEADLINE_S = 60.0, 150.0

QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}

#: Milliseconds that nobody cares for: between a job's submission, which is noted when it has been done, and its noting.
MOMENT_MS = 5.0


class Load:
    """Jobs on their way."""

    def __init__(self, client: Client, jobs: int) -> None:
        """Prepare them."""
        self._client, self.sent = client, dict[int, tuple[str, float]]()
        bursts = [[lane] * BURST for lane, share in MIX.items() for _ in range(round(share * jobs / BURST))]
        random.Random(3).shuffle(bursts)
        self._lanes = [lane for burst in bursts for lane in burst]

    def submit(self, rate: float, look: Callable[[], None], looks: int) -> None:
        """Submit so many a second; look so many times in the course of it, after the first half."""
        begun, total = time.monotonic(), len(self._lanes)
        at = {total // 2 + number * total // (2 * looks) for number in range(1, looks + 1)}
        for number, lane in enumerate(self._lanes):
            burst = number // BURST * BURST
            time.sleep(max(0.0, begun + burst / rate - time.monotonic()))
            self.sent[number] = (lane, time.time())
            messages = [{"role": "user", "content": "hello"}]
            self._client.submit(lane, model="m", max_tokens=9, messages=messages, metadata={"user_id": str(number)})
            if number + 1 in at:
                look()


class Truth:
    """What the API has noted."""

    def __init__(self, calls: list[dict[str, Any]], sent: dict[int, tuple[str, float]]) -> None:
        """Join the calls to the jobs."""
        self._sent = sent
        self._calls = {int(call["user_id"]): (call["arrived"], call["ended"]) for call in calls}

    def depths(self, at: float) -> dict[str, int]:
        """Return lane -> jobs that were submitted and not called."""
        found = dict.fromkeys(MIX, 0)
        for number, (lane, sent) in self._sent.items():
            found[lane] += sent <= at < self._calls[number][0]
        return found

    def ended(self, lane: str, since: float, until: float) -> int:
        """Return how many calls ended."""
        return sum(self._sent[number][0] == lane and since <= end < until for number, (_, end) in self._calls.items())

    def times_ms(self) -> dict[str, dict[str, list[float]]]:
        """Return lane -> the waits and the lengths of its calls, sorted."""
        found: dict[str, dict[str, list[float]]] = {lane: defaultdict(list) for lane in MIX}
        for number, (arrived, ended) in sorted(self._calls.items()):
            lane, sent = self._sent[number]
            found[lane]["wait_ms"].append((arrived - sent) * 1000)
            found[lane]["call_ms"].append((ended - arrived) * 1000)
        return {lane: {name: sorted(values) for name, values in those.items()} for lane, those in found.items()}


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what was told, what is true and by which fraction they differ."""
    looks: list[tuple[float, dict[str, Any]]] = []
    with Rig("--latency", str(LATENCY), "--jitter", str(JITTER)) as rig:
        for number in range(4):
            rig.worker(f"w{number}", "-Q", "critical,normal,batch", "-c", str(arguments.slots))
        keys = {lane.name: SecretStr("k") for lane in LANES}
        app = create_app(Settings(broker_url=rig.broker_url, result_backend=rig.broker_url, api_keys=keys))
        load = Load(Client(app), arguments.jobs)
        load.submit(arguments.rate, lambda: looks.append((time.time(), get_queue_stats(app))), arguments.looks)
        _until(lambda: rig.summary()["statuses"].get("200") == len(load.sent), "every call is answered")
        _until(lambda: _done(app) == len(load.sent), "the workers have written their figures")
        told, truth = get_queue_stats(app, window_s=300), Truth(rig.calls(), load.sent)
    rows = [*_times(told, truth), *_rates(looks, truth), *_depths(looks, truth)]
    worst = max(rows, key=lambda row: row["off"])
    return {"jobs": len(load.sent), "rows": rows, "worst_off": worst["off"]}


def _done(app: Any) -> int:
    return sum(lane["processed"] for lane in get_queue_stats(app)["lanes"].values())


def _until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"never: {what}")
        time.sleep(0.2)


def _times(told: dict[str, Any], truth: Truth) -> list[dict[str, Any]]:
    rows = []
    for lane, figures in truth.times_ms().items():
        for name, values in figures.items():
            for quantile, fraction in QUANTILES.items():
                true = values[min(len(values) - 1, int(fraction * len(values)))]
                rows.append(_row(f"{lane} {name} {quantile}", told["lanes"][lane][name][quantile], true, MOMENT_MS))
    return rows


def _rates(looks: list[tuple[float, dict[str, Any]]], truth: Truth) -> list[dict[str, Any]]:
    """Compare the mean of all looks: in a minute of bursts, what one look lags behind by is a burst."""
    rows = []
    for lane in MIX:
        told = [seen["lanes"][lane]["throughput_per_min"] for _, seen in looks]
        true = [truth.ended(lane, at - MINUTE, at) for at, _ in looks]
        rows.append(_row(f"{lane} throughput_per_min", sum(told) / len(told), sum(true) / len(true), 0))
    return rows


def _depths(looks: list[tuple[float, dict[str, Any]]], truth: Truth) -> list[dict[str, Any]]:
    told, true = 0, 0
    for at, seen in looks:
        told += sum(lane["depth"] for lane in seen["lanes"].values())
        true += sum(truth.depths(at).values())
    return [_row("depth, sum of all looks", told, true, 0)]


def _row(name: str, told: float, true: float, moment: float) -> dict[str, Any]:
    off = max(0.0, abs(told - true) - moment) / true if true else float(told != true)
    return {"figure": name, "told": round(told, 1), "true": round(true, 1), "off": round(off, 4)}


def say(figures: dict[str, Any]) -> str:
    """Return the figures for people."""
    rows = [
        f"{row['figure']:32} told {row['told']:10,} true {row['true']:10,} off {row['off']:.1%}"
        for row in figures["rows"]
    ]
    return "\n".join([*rows, f"the worst is off by {figures['worst_off']:.1%}"])


if __name__ == "__main__":
    main(
        __doc__,
        measure,
        say,
        jobs=5_000,
        rate=(60.0, "jobs a second that are submitted"),
        slots=(12, "of each of the four workers"),
        looks=(20, "at the depth and the throughput"),
    )
