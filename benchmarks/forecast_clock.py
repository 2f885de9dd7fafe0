"""The same as forecast.py at a time that is set: what a busy machine does not change, and the same each time.

Every publication, claim, settlement and forecast is the scheduler's own script on a real server; only time, and the
calls, are not real. With ``--no-limits`` the slots are what is short. Needs the extra `embedded`.
"""

from __future__ import annotations

import heapq
import itertools
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from forecast import BACKLOG_S, LIMITS, LOAD, MIX, RATES, WARM_S, Told, figures_of
from kit.bench import bench_broker, main
from kit.clock import ClockedRedis
from kit.scheduler import Scheduler

from celery_app.budget import Budget, Cost, Usage
from celery_app.lanes import LANES
from celery_app.metrics.explanation import explanation_of
from celery_app.metrics.shortage import Shortage, explain_arguments
from celery_app.scheduler.scripts import EXPLAIN
from celery_app.settings import Limits

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

NAMES = tuple(lane.name for lane in LANES)
BY_NAME = {lane.name: lane for lane in LANES}

#: Model -> the pattern that it shares its limits with.
FAMILIES = {"small": "small", "large": "large", "mid-a": "mid*", "mid-b": "mid*"}

#: Input tokens of a job, at least and at most; seconds of a call, and the fraction by which it is longer or shorter.
TOKENS, CALL_S, SPREAD = (100, 700), 1.0, 0.25

#: Seconds that a claim comes later than it was told, at least.
LATE_S = 0.002


class World:
    """Jobs that come, slots that take them, and what each job was told."""

    def __init__(self, scheduler: Scheduler, arguments: argparse.Namespace) -> None:
        """Prepare; nothing has come yet."""
        self._scheduler, self._clock, self._worker = scheduler, scheduler.client, scheduler.worker()
        self._random, self._free, self._look = random.Random(arguments.seed), arguments.slots, float("inf")
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        limits = {
            model: Limits() if arguments.no_limits else Limits(**LIMITS[each]) for model, each in FAMILIES.items()
        }
        self._budgets = {m: Budget(f"key:{FAMILIES[m]}", m, limits[m], LANES, sharers=NAMES) for m in RATES}
        self._rate = LOAD * (arguments.slots / CALL_S if arguments.no_limits else sum(RATES.values()))
        self._first, self._last = WARM_S, WARM_S + arguments.jobs / self._rate
        self._jobs: dict[str, tuple[str, int]] = {}
        self.told, self.began = list[Told](), dict[int, float]()

    def run(self) -> None:
        """Let jobs come, also behind those that are asked about, until these have left."""
        for name in NAMES:
            self._scheduler.raw.zadd(f"lanes:workers:{name}", {"worker": 1e15})
        for model, each in RATES.items():
            for _ in range(round(each * BACKLOG_S)):
                self._submit("batch", model)
        self._claim()
        self._at(0.0, self._arrive)
        while not self._is_over():
            self._clock.now, _, what = heapq.heappop(self._events)
            what()

    def _is_over(self) -> bool:
        return self._clock.now > self._last and all(each.number in self.began for each in self.told)

    def _at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._events, (max(when, self._clock.now), next(self._order), what))

    def _arrive(self) -> None:
        (lane,) = self._random.choices(list(MIX), [share for share, _ in MIX.values()])
        (model,) = self._random.choices(list(RATES), list(RATES.values()))
        number = self._submit(lane, model)
        self._claim()
        if self._first < self._clock.now < self._last and number not in self.began:
            self._ask(number, lane, model)
        self._at(self._clock.now + self._random.expovariate(self._rate), self._arrive)

    def _submit(self, lane: str, model: str) -> int:
        number, tokens = len(self._jobs), self._random.randint(*TOKENS)
        cost, tenant = Cost(input_tokens=tokens, output_tokens=0), self._random.choice(MIX[lane][1])
        self._scheduler.put(self._budgets[model], BY_NAME[lane], str(number), cost, tenant=tenant)
        self._jobs[str(number)] = (model, tokens)
        return number

    def _ask(self, number: int, lane: str, model: str) -> None:
        arguments = explain_arguments("", LANES, str(number), [CALL_S] * len(LANES))
        (row,) = EXPLAIN.run(self._clock, (), arguments)
        said = explanation_of(Shortage.of(row), [])
        self.told.append(Told(number, lane, model, self._clock.now, said["state"], said["expected_s"]))

    def _claim(self) -> None:
        if not self._free:
            return
        for held in self._scheduler.claim(self._free, self._worker, queues=NAMES):
            self._free -= 1
            self.began.setdefault(int(held.name), self._clock.now)
            took = CALL_S * self._random.uniform(1 - SPREAD, 1 + SPREAD)
            self._at(self._clock.now + took, lambda held=held: self._end(held))  # type: ignore[misc]
        look = self._clock.now + max(LATE_S, self._worker.look_ms / 1000)
        if self._worker.look_ms >= 0 and look < self._look:
            self._look = look
            self._at(look, lambda: self._look_again(look))

    def _look_again(self, look: float) -> None:
        if self._look == look:
            self._look = float("inf")
            self._claim()

    def _end(self, held: Any) -> None:
        model, tokens = self._jobs[held.name]
        self._scheduler.settle(self._budgets[model], held, Usage(tokens, 16))
        self._worker.ack(held)
        self._free += 1
        self._claim()


def measure(arguments: argparse.Namespace) -> Any:
    """Return how well the jobs were told."""
    with bench_broker() as bench:
        world = World(Scheduler(ClockedRedis(bench.client)), arguments)
        world.run()
    return figures_of(world.told, world.began)


def say(figures: Any) -> str:
    """Return a line for each lane, and for all."""
    return "\n".join(
        f"{name:9}" + "".join(f" {f} {value}" for f, value in row.items()) for name, row in figures.items()
    )


if __name__ == "__main__":
    main(__doc__ or "", measure, say, jobs=1_000, slots=64, seed=5, no_limits=False)
