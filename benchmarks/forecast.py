"""Whether a job is told when it will leave: ``expected_s`` at its submission against when the API was called.

Jobs of three lanes, of several tenants and models, come at a steady rate beside a backlog in `batch`, while the API's
limits are what is short; or, with ``--latency 4``, the slots. When a call began is what the simulated API has noted.
Needs the extra `embedded`.
"""

from __future__ import annotations

import itertools
import json
import random
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from kit.bench import main
from pydantic import SecretStr
from rig import Rig

from celery_app import LANES, create_app
from celery_app.client import Client
from celery_app.settings import Settings

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

#: Requests a minute of one model, input tokens of another, both of two that share a budget.
LIMITS = {"small": {"rpm": 720}, "large": {"itpm": 120_000}, "mid*": {"rpm": 480, "itpm": 480_000}}

#: Model -> jobs a second that its budget lets through.
RATES = {"small": 12.0, "large": 5.0, "mid-a": 4.0, "mid-b": 4.0}

#: Lane -> the fraction of the jobs, and their tenants.
MIX = {"critical": (0.1, [""]), "normal": (0.3, ["", "ann", "bob"]), "batch": (0.6, ["", "ann", "bob", "eve"])}

#: Characters of a prompt, at least and at most: 400 tokens on average. Fewer arrive than the budgets let through.
CHARACTERS, LOAD = (400, 2_800), 0.97

#: Seconds of a budget's rate that wait in `batch` to begin with; of arrivals before the first question; a deadline.
BACKLOG_S, WARM_S, DEADLINE_S = 25.0, 20.0, 120.0

#: Seconds between two looks at the API's log.
LOOK_EVERY = 2.0

#: A prediction is good within this factor, or within that many seconds: nobody sees the difference.
FACTOR, MOMENT_S = 1.5, 0.1


class Told(NamedTuple):
    """A job, and what it was told."""

    number: int
    lane: str
    model: str
    at: float
    state: str
    expected_s: float | None


class Mix:
    """Submits jobs as they come."""

    def __init__(self, client: Client) -> None:
        """Take a client."""
        self._client, self._numbers, self._random = client, itertools.count(), random.Random(5)

    def submit(self, lane: str, model: str) -> tuple[int, Any]:
        """Submit a job; return its number, which the API notes, and its id."""
        number, text = next(self._numbers), "word " * (self._random.randint(*CHARACTERS) // 5)
        tenant = self._random.choice(MIX[lane][1])
        params = {"model": model, "max_tokens": 64, "messages": [{"role": "user", "content": text}]}
        done = self._client.submit(lane, tenant=tenant or None, metadata={"user_id": str(number)}, **params)
        return number, done.id

    def arrivals(self, rate: float, seconds: float) -> Iterator[tuple[str, str]]:
        """Yield lanes and models, each when it comes."""
        begun, due = time.monotonic(), 0.0
        while (due := due + self._random.expovariate(rate)) < seconds:
            time.sleep(max(0.0, begun + due - time.monotonic()))
            (lane,) = self._random.choices(list(MIX), [share for share, _ in MIX.values()])
            (model,) = self._random.choices(list(RATES), list(RATES.values()))
            yield lane, model


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return how well the jobs were told."""
    limits = json.dumps(LIMITS)
    with Rig("--limits", limits, "--latency", str(arguments.latency), "--jitter", str(arguments.latency / 4)) as rig:
        for number in range(4):
            rig.worker(f"w{number}", "-Q", "critical,normal,batch", "-c", str(arguments.slots), EZAI_LIMITS=limits)
        keys = {lane.name: SecretStr("k") for lane in LANES}
        client = Client(create_app(Settings(broker_url=rig.broker_url, result_backend=rig.broker_url, api_keys=keys)))
        mix, rate = Mix(client), LOAD * (arguments.rate or sum(RATES.values()))
        for model, each in RATES.items():
            for _ in range(round(each * BACKLOG_S)):
                mix.submit("batch", model)
        for lane, model in mix.arrivals(rate, WARM_S):
            mix.submit(lane, model)
        told = []
        for lane, model in mix.arrivals(rate, arguments.jobs / rate):
            number, task_id = mix.submit(lane, model)
            said = client.explain(task_id)
            told.append(Told(number, lane, model, time.time(), said["state"], said["expected_s"]))
        began = _began(rig, mix, rate, {each.number for each in told})
    return figures_of(told, began)


def _began(rig: Rig, mix: Mix, rate: float, numbers: set[int]) -> dict[int, float]:
    """Return when each call began, once all have; until then others come as before."""
    end = time.monotonic() + DEADLINE_S
    while True:
        for lane, model in mix.arrivals(rate, LOOK_EVERY):
            mix.submit(lane, model)
        began = {int(call["user_id"]): call["arrived"] for call in reversed(rig.calls()) if call["user_id"]}
        if numbers <= began.keys():
            return began
        if time.monotonic() > end:
            raise SystemExit(f"{len(numbers - began.keys())} jobs were never called")


def figures_of(told: list[Told], began: dict[int, float]) -> dict[str, Any]:
    """Return the figures of each lane, and of all."""
    waiting = [each for each in told if each.state == "queued"]
    rows = {"all": waiting} | {lane: [each for each in waiting if each.lane == lane] for lane in MIX}
    return {name: _figures([(each, began[each.number] - each.at) for each in those]) for name, those in rows.items()}


def _figures(rows: list[tuple[Told, float]]) -> dict[str, Any]:
    if not rows:
        return {"jobs": 0}
    good = [_is_good(each.expected_s, waited) for each, waited in rows]
    long = sorted(each.expected_s / waited for each, waited in rows if waited > 1 and each.expected_s is not None)
    tenths = [round(at, 2) for at in statistics.quantiles(long, n=10)] if len(long) > 1 else []
    return {
        "jobs": len(rows),
        "good": round(sum(good) / len(good), 3),
        "untold": sum(each.expected_s is None for each, _ in rows),
        "waited_p50_s": round(statistics.median(waited for _, waited in rows), 2),
        "waited_over_1_s": len(long),
        "expected_by_waited_tenths": tenths,
    }


def _is_good(expected: float | None, waited: float) -> bool:
    if expected is None:
        return False
    least, most = sorted((max(0.0, expected), max(0.0, waited)))
    return most - least <= MOMENT_S or most <= FACTOR * least


def say(figures: dict[str, Any]) -> str:
    """Return the figures for people."""
    return "\n".join(
        f"{name:9}" + "".join(f" {field} {value}" for field, value in row.items()) for name, row in figures.items()
    )


if __name__ == "__main__":
    main(
        __doc__,
        measure,
        say,
        jobs=(1000, "that are asked about; those that leave at once do not count"),
        latency=(1.0, "seconds of a call"),
        slots=(16, "of each of the four workers"),
        rate=(0.0, "jobs a second that can be served; 0: by the limits"),
    )
