"""A chat beside a batch, 20 requests a second for both: the lanes and stock Celery, in one run.

1,000 jobs in batch, 60 in critical at 2 a second; 10 slots for critical alone, 100 for all; the API allows 20 requests
a second. Waits are from submission to the arrival of the call that was answered, by the API's own log.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import TYPE_CHECKING, Any

from rig import Rig, quantiles

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT = 20  # requests/s
BATCH_JOBS, CRITICAL_JOBS, EVERY = 1000, 60, 0.5
LATENCY = 0.3  # s
DEADLINE = 300.0  # s for everything to be answered


def request(user_id: str) -> dict[str, Any]:
    """Return the parameters of one call."""
    messages = [{"role": "user", "content": "Classify this document: " + "word " * 40}]
    return {"model": "bench-model", "max_tokens": 50, "messages": messages, "metadata": {"user_id": user_id}}


def with_lanes(rig: Rig) -> Callable[[dict[str, Any], str], None]:
    """Start the lanes' workers."""
    env = {"EZAI_RPM": str(LIMIT * 60)}
    rig.worker("critical", "-Q", "critical", "-c", "10", **env)
    rig.worker("shared", "-Q", "critical,normal,batch", "-c", "100", **env)
    os.environ.update(rig.environment)
    from celery_app import create_app
    from tasks import create_message

    task = create_app().tasks[create_message.name]
    return lambda params, lane: task.apply_async(kwargs=params, queue=lane)


def with_stock(rig: Rig) -> Callable[[dict[str, Any], str], None]:
    """Start stock Celery's workers."""
    rig.worker("critical", "-Q", "critical", "-c", "10", app="stock_app")
    rig.worker("shared", "-Q", "critical,normal,batch", "-c", "100", app="stock_app")
    os.environ.update(rig.environment)
    import stock_app

    def submit(params: dict[str, Any], lane: str) -> None:
        stock_app.create_message.apply_async(kwargs=params, queue=lane, priority=stock_app.PRIORITY[lane])

    return submit


def measure(start_workers: Callable[[Rig], Callable[[dict[str, Any], str], None]], batch: int) -> dict[str, Any]:
    """Run the scenario once."""
    with Rig("--rpm", str(LIMIT * 60), "--latency", str(LATENCY)) as rig:
        submit = start_workers(rig)
        submit(request("warm-up"), "critical")
        time.sleep(2)
        submitted: dict[str, float] = {}
        start = time.time()
        for n in range(batch):
            submit(request(f"batch-{n}"), "batch")
        for n in range(CRITICAL_JOBS):
            submitted[f"critical-{n}"] = time.time()
            submit(request(f"critical-{n}"), "critical")
            time.sleep(max(0, start + (n + 1) * EVERY - time.time()))
        end = time.monotonic() + DEADLINE
        while rig.summary()["statuses"].get("200", 0) < batch + CRITICAL_JOBS + 1 and time.monotonic() < end:
            time.sleep(0.25)
        calls = rig.calls()
    answered = {call["user_id"]: call["arrived"] for call in calls if call["status"] == 200}
    waits = [answered[job] - at for job, at in submitted.items() if job in answered]
    took = max(answered.values()) - start
    return {
        "critical_ms": quantiles(waits),
        "unanswered": batch + CRITICAL_JOBS + 1 - len(answered),
        "limited": sum(call["status"] == 429 for call in calls),
        "seconds": round(took, 1),
        "ratio_to_ideal": round(took / ((batch + CRITICAL_JOBS) / LIMIT), 3),
    }


def main() -> None:
    """Print a line for each, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", choices=["lanes", "stock"])
    parser.add_argument("--batch", type=int, default=BATCH_JOBS)
    options = parser.parse_args()
    runs = {"lanes": with_lanes, "stock": with_stock}
    results = {name: measure(start, options.batch) for name, start in runs.items() if options.only in {None, name}}
    if options.json:
        print(json.dumps(results))
        return
    for name, result in results.items():
        print(f"{name}: {result}")


if __name__ == "__main__":
    main()
