"""How long a scrape of the exporter takes with 1,000,000 jobs of 1,000 tenants queued. Needs the extra `exporter`."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from broker_kit.bench import bench_broker, main, percentiles
from prometheus_client import CollectorRegistry, generate_latest

from celery_app.broker.packet import Packet, cost_header
from celery_app.budget import Budget, Cost
from celery_app.lanes import BATCH, LANES
from celery_app.metrics.prometheus import LanesCollector
from celery_app.routing import COST, MODEL, TENANT
from celery_app.scheduler.scripts import PUBLISH_MANY
from celery_app.settings import Limits

if TYPE_CHECKING:
    import argparse

    from broker_kit.broker import Broker

CHUNK = 1_000


def fill(broker: Broker, jobs: int, tenants: int, models: int) -> None:
    """Queue jobs of so many tenants and models, each with a budget of its own."""
    for number in range(models):
        budget = Budget(f"key:m{number}", f"m{number}", Limits(rpm=60), LANES, sharers=("batch",))
        broker.client.hset("lanes:terms", f"batch:m{number}", budget.terms)
    cost = cost_header(Cost(output_tokens=0))
    for first in range(0, jobs, CHUNK):
        parts = []
        for number in range(first, min(first + CHUNK, jobs)):
            name, tenant = f"job-{number}", f"tenant-{number % tenants}"
            headers = {"id": name, MODEL: f"m{number // tenants % models}", TENANT: tenant, COST: cost}
            text = json.dumps({"headers": {"id": name}}).encode()
            parts += Packet(name, text, BATCH.priority, headers, "", 0.0).arguments()
        PUBLISH_MANY.run(broker.client, (), ("", BATCH.name, 2 * jobs, f"batch:{first}", 60, 0, *parts))


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
