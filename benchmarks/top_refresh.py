"""What a refresh of `lanes top` takes with 1,000,000 jobs of 1,000 tenants queued."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from broker_kit.backlog import fill
from broker_kit.bench import bench_broker, main, percentiles

from celery_app.metrics.overview import Overview

if TYPE_CHECKING:
    import argparse

    from broker_kit.broker import Broker


def _cpu_s(broker: Broker) -> float:
    """Return the seconds that the server has worked: of a busy machine, what its own clock says is more."""
    cpu = broker.client.info("cpu")
    return float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])


def measure(arguments: argparse.Namespace) -> Any:
    """Return milliseconds of looks, and of that what Redis is busy with them."""
    with bench_broker() as broker:
        fill(broker, arguments.jobs, arguments.tenants, arguments.models)
        overview = Overview(broker.app, "celery")
        overview.look()
        broker.client.config_resetstat()
        times, cpu, redis_cpu = [], time.process_time(), _cpu_s(broker)
        for _ in range(arguments.looks):
            begun = time.perf_counter()
            seen = overview.look()
            times.append((time.perf_counter() - begun) * 1000)
        cpu = time.process_time() - cpu
        redis_cpu = _cpu_s(broker) - redis_cpu
        scripts = broker.client.info("commandstats")["cmdstat_evalsha"]["calls"]
        assert seen["lanes"]["batch"]["depth"] == arguments.jobs
    busy = {"cpu_ms": cpu * 1000, "redis_cpu_ms": redis_cpu * 1000, "scripts": scripts}
    each = {name: round(value / arguments.looks, 2) for name, value in busy.items()}
    return {"look_ms": percentiles(times), **each}


def say(figures: Any) -> str:
    """Return a line."""
    look = figures["look_ms"]
    return (
        f"a refresh takes {look['p50']} ms (p95 {look['p95']}, max {look['max']}), {figures['cpu_ms']} ms of the "
        f"command's processor and {figures['redis_cpu_ms']} ms of Redis' in {figures['scripts']:.0f} scripts"
    )


if __name__ == "__main__":
    main(__doc__, measure, say, jobs=1_000_000, tenants=1_000, models=3, looks=100)
