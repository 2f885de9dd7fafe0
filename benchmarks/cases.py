"""What no contender but the lanes can do, each case with real workers, a real broker and the simulated API.

tokens    input tokens are what is scarce
shares    normal and batch both have an endless backlog
hidden    nothing is configured, no header says anything; the limit is 20/s, then 8/s, then 40/s
headers   nothing is configured, the headers say it
models    one lane, a slow model and a fast one
outage    the API is overloaded for 30 s
tenants   twenty small ones behind a large one, then two with weights 3 : 1
waiters   fifty workers wait for one budget: what that costs Redis
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from rig import Rig
from scenarios import LATENCY, LIMITED, RATE, SLOTS
from trial import trial

if TYPE_CHECKING:
    from collections.abc import Callable

    from trial import Trial

#: Seconds after which a boosted lane's share is due in the case `shares`; the defaults would take a minute to see.
BOOST_AFTER = "3"
#: Tenants, jobs of each, and of the large one; it has every 21st turn while they have jobs, and a call takes its time.
SMALL, EACH, LARGE = 20, 10, 3_000
FAIR_S = SMALL * EACH * (SMALL + 1) / SMALL / RATE
#: Jobs of each of two tenants with weights, the seconds that are counted, and the most for all small ones.
WEIGHTED, WEIGHTED_S, DEADLINE_S = 600, 25.0, 120.0
#: Workers that wait, each with four slots, and seconds of it.
WAITERS, WAITERS_S = 50, 20.0


def tokens() -> dict[str, Any]:
    """Input tokens are scarce."""
    draw = random.Random(7)
    with trial("lanes", "--itpm", "100000", "--latency", str(LATENCY)) as run:
        run.start(**SLOTS, limited=False, EZAI_ITPM="100000")
        for _ in range(600):
            run.submit("batch", "batch", tokens=draw.randint(50, 3_000))
        time.sleep(20)  # the burst that was saved up is gone
        start = time.time()
        for _ in range(60):
            run.submit("critical", "critical", tokens=draw.randint(50, 1_000))
            time.sleep(1)
        calls = [call for call in run.rig.calls() if start <= call["arrived"] < start + 60]
        used = sum(call["input_tokens"] for call in calls if call["status"] == 200)
        return {"critical_ms": run.waits("critical"), "use": used / 100_000, **_limited_share(run, 0)}


def shares() -> dict[str, Any]:
    """Two lanes with an endless backlog."""
    with trial("lanes", *LIMITED) as run:
        boosts = {"LANES_BATCH_BOOST_AFTER": BOOST_AFTER, "LANES_NORMAL_BOOST_AFTER": BOOST_AFTER}
        run.start(**SLOTS, limited=True, **boosts)
        for _ in range(1_500):
            run.submit("normal", "normal")
            run.submit("batch", "batch")
        time.sleep(10)
        start = time.time()
        run.at_rate("critical", "critical", 2, 40)
        calls = [call for call in run.rig.calls() if call["status"] == 200 and call["arrived"] >= start]
        kinds = Counter(call["user_id"].split("-")[0] for call in calls)
        use = kinds.total() / (RATE * (time.time() - start))
        share = {kind: round(count / kinds.total(), 3) for kind, count in kinds.items()}
        return {"critical_ms": run.waits("critical"), "share": share, "use": round(use, 3), **_limited_share(run, 0)}


def hidden() -> dict[str, Any]:
    """A limit that nobody tells, and that changes."""
    found = {}
    with trial("lanes", *LIMITED, "--no-headers") as run:
        run.start(**SLOTS, limited=False)
        for _ in range(6_000):
            run.submit("batch", "batch")
        for rate in (20, 8, 40):
            run.rig.control(rpm=rate * 60)
            time.sleep(45)
            settled = time.time()
            time.sleep(30)
            use = run.used(settled, settled + 30) / (30 * rate)
            found[f"{rate}/s"] = {"use": round(use, 3), **_limited_share(run, settled)}
    return found


def headers() -> dict[str, Any]:
    """A limit that only the headers tell."""
    with trial("lanes", *LIMITED) as run:
        run.start(**SLOTS, limited=False)
        for _ in range(1_200):
            run.submit("batch", "batch")
        start = time.time()
        run.at_rate("critical", "critical", 2, 40)
        use = run.used(start, start + 40) / (RATE * 40)
        return {"critical_ms": run.waits("critical"), "use": round(use, 3), **_limited_share(run, start)}


def models() -> dict[str, Any]:
    """A slow model must not hold up a fast one."""
    limits = json.dumps({"slow*": {"rpm": 120}, "fast*": {"rpm": 1_200}})
    with trial("lanes", "--limits", limits, "--latency", str(LATENCY)) as run:
        run.start(**SLOTS, limited=False, EZAI_LIMITS=limits)
        start = time.time()
        for _ in range(300):
            run.submit("slow", "batch", model="slow-model")
            run.submit("fast", "batch", model="fast-model")
        run.until_answered("fast", 60)
        done = [times[-1] for times in run.answered("fast").values()]
        return {"fast_done": len(done), "ratio_to_ideal": round((max(done) - start) / (300 / RATE), 3)}


def outage() -> dict[str, Any]:
    """Overloaded, then back."""
    with trial("lanes", *LIMITED) as run:
        run.start(**SLOTS, limited=True)
        for _ in range(1_500):
            run.submit("batch", "batch")
        time.sleep(5)
        run.rig.control(outage=True)
        down = time.time()
        time.sleep(30)
        run.rig.control(outage=False)
        up = time.time()
        time.sleep(10)
        during = sum(down + 2 <= call["arrived"] < up for call in run.rig.calls())
        return {
            "calls_per_s_per_worker_meanwhile": round(during / (up - down - 2) / 2, 2),
            "rate_5_to_10_s_after": round(run.used(up + 5, up + 10) / (5 * RATE), 3),
        }


def tenants() -> dict[str, Any]:
    """Fairness between tenants."""
    with trial("lanes", *LIMITED) as run:
        run.start(0, 40, limited=True)
        run.submit_many("large", LARGE, tenant="large")
        time.sleep(2)  # the burst is over
        begun, small = time.monotonic(), [f"small{n}" for n in range(SMALL)]
        for tenant in small:
            run.submit_many(tenant, EACH, tenant=tenant)
        while len(run.answered(*small)) < SMALL * EACH and time.monotonic() < begun + DEADLINE_S:
            time.sleep(0.1)
        seconds = time.monotonic() - begun
    with trial("lanes", *LIMITED) as run:
        run.start(0, 40, limited=True, LANES_TENANT_WEIGHTS='{"three": 3}')
        for tenant in ("one", "three"):
            run.submit_many(tenant, WEIGHTED, tenant=tenant)
        time.sleep(2)
        before = {tenant: len(run.answered(tenant)) for tenant in ("one", "three")}
        time.sleep(WEIGHTED_S)
        done = {tenant: len(run.answered(tenant)) - had for tenant, had in before.items()}
    behind = {"seconds": round(seconds, 1), "of_fair": round(seconds / FAIR_S, 3)}
    return {
        "behind_a_large_one": behind,
        "weights_3_to_1": {"done": done, "ratio": round(done["three"] / done["one"], 3)},
    }


def waiters() -> dict[str, Any]:
    """What Redis does while many workers wait for one budget."""
    with Rig(*LIMITED) as rig:
        for n in range(WAITERS):
            rig.begin_worker(
                f"w{n}", "-Q", "critical,normal,batch", "-c", "4", app="celery_app", EZAI_RPM=str(RATE * 60)
            )
        rig.wait_until_ready()
        os.environ.update(rig.environment)
        from celery_app import create_app
        from celery_app.client import Client

        call = {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "Classify this"}]}
        Client(create_app()).submit_many([call] * int(RATE * (WAITERS_S + 10)))
        time.sleep(3)  # the burst is over, all of them wait
        before, since = rig.broker_cpu_seconds(), time.monotonic()
        time.sleep(WAITERS_S)
        share = (rig.broker_cpu_seconds() - before) / (time.monotonic() - since)
        return {"workers": WAITERS, "core_percent": round(100 * share, 1), **rig.summary()["statuses"]}


def _limited_share(run: Trial, since: float) -> dict[str, float]:
    seen = Counter(call["status"] for call in run.rig.calls() if call["arrived"] >= since)
    return {"limited_share": round(seen[429] / max(1, seen.total()), 4)}


CASES: dict[str, Callable[[], dict[str, Any]]] = {
    case.__name__: case for case in (tokens, shares, hidden, headers, models, outage, tenants, waiters)
}


def main() -> None:
    """Print a line for each case, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help=", ".join(CASES))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    unknown = set(options.cases) - set(CASES)
    if unknown:
        sys.exit(f"no such case: {', '.join(unknown)}; there are {', '.join(CASES)}")
    results = {}
    for name in options.cases or CASES:
        results[name] = CASES[name]()
        if not options.json:
            print(f"{name}: {json.dumps(results[name])}", flush=True)
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
