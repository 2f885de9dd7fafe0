"""How long a look takes with 1,000,000 jobs of 1,000 tenants queued: a scrape, `lanes status`, and a job's forecast.

The quantiles say how long somebody waits for it; `busy`, what it takes of the processor, here and in Redis. Needs the
extra `exporter`.
"""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from kit.backlog import fill
from kit.bench import bench_broker, main, percentiles
from prometheus_client import CollectorRegistry, generate_latest

from celery_app.metrics.explanation import explain
from celery_app.metrics.prometheus import LanesCollector
from celery_app.metrics.stats import get_queue_stats

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from kit.broker import Broker


def timed(broker: Broker, looks: int, look: Callable[[], object]) -> dict[str, float]:
    """Return the milliseconds of some looks, and what the processor and Redis are busy with each."""
    look()
    broker.client.config_resetstat()
    times, cpu = [], time.process_time()
    for _ in range(looks):
        begun = time.perf_counter()
        look()
        times.append((time.perf_counter() - begun) * 1000)
    cpu = time.process_time() - cpu
    redis = broker.client.info("commandstats")["cmdstat_evalsha"]["usec"] / 1e6
    busy = {name: round(value * 1000 / looks, 2) for name, value in (("cpu", cpu), ("redis_cpu", redis))}
    return {**percentiles(times), **busy, "busy": round(sum(busy.values()), 2)}


def measure(arguments: argparse.Namespace) -> Any:
    """Return milliseconds of each kind of look."""
    with bench_broker() as broker:
        fill(broker, arguments.jobs, arguments.tenants, arguments.models)
        registry = CollectorRegistry()
        registry.register(LanesCollector(broker.app))
        text = generate_latest(registry).decode()
        queued = re.search(r'lanes_jobs_queued{lane="batch"} (\S+)', text)
        assert queued
        assert float(queued[1]) == arguments.jobs == get_queue_stats(broker.app)["queue_depth"]
        looks = {
            "scrape_ms": lambda: generate_latest(registry),
            "status_ms": lambda: get_queue_stats(broker.app),
            "why_job_ms": lambda: explain(broker.app, f"job-{arguments.jobs - 1}"),
        }
        return {name: timed(broker, arguments.scrapes, look) for name, look in looks.items()}


def say(figures: Any) -> str:
    """Return a line for each kind of look."""
    return "\n".join(
        f"{name:12}" + "".join(f" {each} {ms}" for each, ms in row.items()) for name, row in figures.items()
    )


if __name__ == "__main__":
    main(__doc__, measure, say, jobs=1_000_000, tenants=1_000, models=3, scrapes=100)
