"""How long a scrape of the exporter takes with 1,000,000 jobs of 1,000 tenants queued. Needs the extra `exporter`."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from broker_kit.backlog import fill
from broker_kit.bench import bench_broker, main, percentiles
from prometheus_client import CollectorRegistry, generate_latest

from celery_app.metrics.prometheus import LanesCollector

if TYPE_CHECKING:
    import argparse


def measure(arguments: argparse.Namespace) -> Any:
    """Return milliseconds of scrapes, and of that what Redis is busy with them."""
    with bench_broker() as broker:
        fill(broker, arguments.jobs, arguments.tenants, arguments.models)
        registry = CollectorRegistry()
        registry.register(LanesCollector(broker.app))
        generate_latest(registry)
        broker.client.config_resetstat()
        times, cpu = [], time.process_time()
        for _ in range(arguments.scrapes):
            begun = time.perf_counter()
            text = generate_latest(registry).decode()
            times.append((time.perf_counter() - begun) * 1000)
        cpu = time.process_time() - cpu
        scripts = broker.client.info("commandstats")["cmdstat_evalsha"]
        queued = re.search(r'lanes_jobs_queued{lane="batch"} (\S+)', text)
        assert queued
        assert float(queued[1]) == arguments.jobs
    busy = {"exporter_cpu_ms": cpu * 1000, "redis_cpu_ms": scripts["usec"] / 1000}
    each = {name: round(value / arguments.scrapes, 2) for name, value in busy.items()}
    return {"scrape_ms": percentiles(times), **each, "lines": text.count("\n")}


def say(figures: Any) -> str:
    """Return a line."""
    scrape = figures["scrape_ms"]
    return (
        f"a scrape of {figures['lines']} lines takes {scrape['p50']} ms (p95 {scrape['p95']}, max {scrape['max']}), "
        f"{figures['exporter_cpu_ms']} ms of the exporter's processor and {figures['redis_cpu_ms']} ms of Redis'"
    )


if __name__ == "__main__":
    main(__doc__, measure, say, jobs=1_000_000, tenants=1_000, models=3, scrapes=100)
