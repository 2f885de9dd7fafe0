"""Fairness between tenants at 20 requests a second: twenty small ones behind a large one, and two with weights 3 : 1.

`python benchmarks/tenants.py [--json]`
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import Counter
from typing import Any

from rig import Rig

LIMIT = 20  # requests/s
LATENCY = 0.3  # s
SMALL, EACH, LARGE = 20, 10, 3_000  # tenants, jobs of each, jobs of the large one
WEIGHTED_JOBS, WEIGHTED_FOR = 600, 25.0  # jobs of each of two, s
DEADLINE = 120.0  # s

#: The large tenant has every 21st turn while the small ones have jobs, and a call takes its time.
FAIR_S = SMALL * EACH * (SMALL + 1) / SMALL / LIMIT


def request(tenant: str) -> dict[str, Any]:
    """Return the parameters of one call, which the API's log tells by its user id."""
    messages = [{"role": "user", "content": "Classify this document: " + "word " * 40}]
    return {"model": "bench-model", "max_tokens": 50, "messages": messages, "metadata": {"user_id": tenant}}


def client(rig: Rig, **env: str) -> Any:
    """Start a worker and return a client."""
    env = {"EZAI_RPM": str(LIMIT * 60), **env}
    rig.worker("shared", "-Q", "critical,normal,batch", "-c", "40", **env)
    os.environ.update({**rig.environment, **env})
    from celery_app import create_app
    from celery_app.client import Client

    return Client(create_app())


def answered(rig: Rig) -> Counter[str]:
    """Return how many calls of each tenant were answered."""
    return Counter(call["user_id"] for call in rig.calls() if call["status"] == 200)


def behind_a_large_one() -> dict[str, float]:
    """Return the seconds until all jobs of the small tenants are answered, and how often that is the fair time."""
    with Rig("--rpm", str(LIMIT * 60), "--latency", str(LATENCY)) as rig:
        lanes = client(rig)
        lanes.submit_many([request("large")] * LARGE, tenant="large")
        time.sleep(2)  # the burst is over
        begun = time.monotonic()
        for tenant in [f"small-{n}" for n in range(SMALL)]:
            lanes.submit_many([request(tenant)] * EACH, tenant=tenant)
        while sum(n for tenant, n in answered(rig).items() if tenant != "large") < SMALL * EACH:
            if time.monotonic() > begun + DEADLINE:
                raise SystemExit("the small tenants are not done")
            time.sleep(0.1)
        seconds = time.monotonic() - begun
    return {"seconds": round(seconds, 1), "of_fair": round(seconds / FAIR_S, 3)}


def with_weights() -> dict[str, Any]:
    """Return how many of two tenants' jobs were answered while both had some, and the ratio."""
    with Rig("--rpm", str(LIMIT * 60), "--latency", str(LATENCY)) as rig:
        lanes = client(rig, LANES_TENANT_WEIGHTS='{"three": 3}')
        for tenant in ("one", "three"):
            lanes.submit_many([request(tenant)] * WEIGHTED_JOBS, tenant=tenant)
        time.sleep(2)
        before = answered(rig)
        time.sleep(WEIGHTED_FOR)
        done = answered(rig) - before
    return {"done": dict(done), "ratio": round(done["three"] / done["one"], 3)}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = {"behind": behind_a_large_one(), "weights": with_weights()}
    behind, weights = figures["behind"], figures["weights"]
    text = (
        f"{SMALL} tenants with {EACH} jobs behind one with {LARGE:,}: done in {behind['seconds']} s, "
        f"{behind['of_fair']} x the fair {FAIR_S:.1f} s\nweights 3 : 1 come out as {weights['ratio']} : 1"
    )
    print(json.dumps(figures) if options.json else text)


main()
