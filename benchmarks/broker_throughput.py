"""Claim and acknowledge: the lanes' broker against stock kombu, in pairs, on threads and on prefork."""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from celery import Celery
from kit.bench import bench_broker, main
from kit.waiting import wait_until

if TYPE_CHECKING:
    import argparse

    from kit.broker import Broker

APPS = {"stock": "kit.stock", "lanes": "kit.project"}

#: Events cost the same with either broker, and would hide the difference.
CONF = {"worker_send_task_events": False, "task_send_sent_event": False}
IN_TIME_S = 120.0


def fill(broker: Broker, app: str, jobs: int) -> None:
    """Queue jobs that do nothing, each where its worker looks: as records, or in kombu's list."""
    publisher = broker.app
    if app == "stock":
        publisher = Celery(broker=broker.broker_url, set_as_current=False)
        publisher.conf.broker_transport_options = {"queue_order_strategy": "priority"}
    with publisher.producer_or_acquire() as producer, producer.batch():
        for _ in range(jobs):
            publisher.send_task("kit.nothing", queue="batch", producer=producer, ignore_result=True)
    if publisher is not broker.app:
        publisher.close()


def is_empty(broker: Broker, app: str) -> bool:
    """Return whether no job of an application is queued, nor held by a worker."""
    if app == "stock":
        return not broker.client.llen("batch") and not broker.client.hlen("unacked")
    return broker.scripts().places("batch") == 0 and broker.in_flight() == 0


def jobs_per_s(broker: Broker, app: str, pool: str, jobs: int, slots: int) -> float:
    """Return how fast a fresh worker empties a lane of jobs that do nothing."""
    broker.client.flushdb()
    broker.event_log.client.flushdb()
    fill(broker, app, jobs)
    options = {"app": APPS[app], "slots": slots, "conf": {**CONF, "worker_pool": pool}, "queues": "batch"}
    worker = broker.worker(f"{app}-{pool}-{time.monotonic_ns()}", **options)
    start = broker.event_log.read("ready")[-1].at
    wait_until(lambda: is_empty(broker, app), "the lane is empty", IN_TIME_S)
    seconds = time.time() - start
    worker.stop()
    return jobs / seconds


def measure(arguments: argparse.Namespace) -> Any:
    """Return jobs/s of each, and the median of the pairs' ratios."""
    figures: dict[str, Any] = {}
    with bench_broker() as broker:
        for pool, slots in (("threads", 20), ("prefork", 4)):
            runs: dict[str, list[float]] = {"stock": [], "lanes": []}
            for pair in range(arguments.pairs):
                # The order alternates: what a machine does beside hits both alike.
                for app in ("stock", "lanes") if pair % 2 else ("lanes", "stock"):
                    runs[app].append(jobs_per_s(broker, app, pool, arguments.jobs, slots))
            ratios = [lanes / stock for lanes, stock in zip(runs["lanes"], runs["stock"], strict=True)]
            figures[pool] = {
                **{app: round(statistics.median(speeds)) for app, speeds in runs.items()},
                "ratio": round(statistics.median(ratios), 3),
                "ratios": [round(ratio, 3) for ratio in ratios],
            }
    return figures


def say(figures: Any) -> str:
    """Return a line per pool."""
    return "\n".join(
        f"{pool}: lanes {row['lanes']:,} jobs/s, stock {row['stock']:,}, ratio {row['ratio']} (pairs {row['ratios']})"
        for pool, row in figures.items()
    )


if __name__ == "__main__":
    main(__doc__, measure, say, pairs=3, jobs=5_000)
