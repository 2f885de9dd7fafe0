"""How full a worker's slots are: 400 jobs of 0.1 s on 20 threads, and how soon a freed slot has the next job."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from kit.bench import bench_broker, main, percentiles
from kit.waiting import wait_until

if TYPE_CHECKING:
    import argparse

APPS = {True: "kit.stock", False: "kit.project"}
#: Events cost the same with either broker.
NO_EVENTS = {"worker_send_task_events": False}
SLOTS = 20
IN_TIME_S = 60.0


def measure(arguments: argparse.Namespace) -> Any:
    """Return the share of the ideal speed, and the refill times."""
    jobs, seconds = arguments.jobs, arguments.seconds
    with bench_broker() as broker:
        with broker.app.producer_or_acquire() as producer, producer.batch():
            for _ in range(jobs):
                broker.send("kit.timed", seconds, producer=producer, ignore_result=True)
        worker = broker.worker(slots=SLOTS, app=APPS[arguments.stock], conf={} if arguments.events else NO_EVENTS)
        wait_until(lambda: broker.scripts().places("batch") == 0 and broker.in_flight() == 0, "all is done", IN_TIME_S)
        worker.stop()
        times = [tuple(map(float, entry.job.split(":"))) for entry in broker.event_log.read("times")]
    starts, ends = (sorted(moments) for moments in zip(*times, strict=True))
    ideal = jobs * seconds / SLOTS
    # The nth end frees a slot, and the start number n + SLOTS takes it.
    refills = [(start - end) * 1000 for end, start in zip(ends, starts[SLOTS:], strict=False)]
    took = ends[-1] - starts[0]
    return {
        "efficiency": round(ideal / took, 3),
        "seconds": round(took, 3),
        "ideal_s": ideal,
        "refill_ms": percentiles(refills),
    }


def say(figures: Any) -> str:
    """Return a line."""
    refill = figures["refill_ms"]
    return (
        f"{figures['seconds']} s of {figures['ideal_s']} s ideal: {figures['efficiency']:.1%}; "
        f"a freed slot is refilled after {refill['p50']} ms (p95 {refill['p95']}, max {refill['max']})"
    )


if __name__ == "__main__":
    main(__doc__, measure, say, jobs=400, seconds=0.1, stock=False, events=False)
