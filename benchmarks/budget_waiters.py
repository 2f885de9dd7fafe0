"""What Redis does while many workers wait for one budget: its share of a core, with 20 requests a second for all.

`python benchmarks/budget_waiters.py [--workers 50] [--seconds 20] [--json]`
"""

from __future__ import annotations

import argparse
import json
import os
import time

from redis import Redis
from rig import Rig

LIMIT = 20  # requests/s
LATENCY = 0.3  # s


def cpu_seconds(redis: Redis) -> float:
    """Return what the server has used since its start."""
    used = redis.info("cpu")
    return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])


def main() -> None:
    """Print the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with Rig("--rpm", str(LIMIT * 60), "--latency", str(LATENCY)) as rig, Redis.from_url(rig.broker_url) as redis:
        env = {"EZAI_RPM": str(LIMIT * 60)}
        for n in range(options.workers):
            rig.worker(f"w{n}", "-Q", "critical,normal,batch", "-c", "4", **env)
        os.environ.update(rig.environment)
        from celery_app import create_app
        from celery_app.client import Client

        call = {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "Classify this"}]}
        Client(create_app()).submit_many([call] * int(LIMIT * (options.seconds + 10)))
        time.sleep(3)  # the burst is over, all of them wait
        before, since = cpu_seconds(redis), time.monotonic()
        time.sleep(options.seconds)
        share = (cpu_seconds(redis) - before) / (time.monotonic() - since)
        answered = sum(call["status"] == 200 for call in rig.calls())
        refused = sum(call["status"] == 429 for call in rig.calls())
    figures = {"workers": options.workers, "core_percent": round(100 * share, 1), "answered": answered, "429s": refused}
    text = f"{options.workers} workers wait for {LIMIT}/s: Redis uses {100 * share:.1f} % of a core; {refused} refused"
    print(json.dumps(figures) if options.json else text)


main()
