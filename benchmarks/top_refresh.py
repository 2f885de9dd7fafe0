"""What a refresh of `lanes top` takes with 1,000,000 jobs of 1,000 tenants queued."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from kit.backlog import fill
from kit.bench import bench_broker, main, percentiles

from celery_app.metrics.overview import Overview
from celery_app.metrics.stats import get_queue_stats

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from kit.broker import Broker


def _cpu_s(broker: Broker) -> float:
    """Return the seconds that the server has worked: of a busy machine, what its own clock says is more."""
    cpu = broker.client.info("cpu")
    return float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])


def timed(broker: Broker, looks: int, look: Callable[[], Any]) -> dict[str, Any]:
    """Return milliseconds of looks, and of that what this process and Redis work."""
    look()
    times, cpu, redis_cpu = [], time.process_time(), _cpu_s(broker)
    for _ in range(looks):
        begun = time.perf_counter()
        look()
        times.append((time.perf_counter() - begun) * 1000)
    busy = {"cpu_ms": time.process_time() - cpu, "redis_cpu_ms": _cpu_s(broker) - redis_cpu}
    return {"ms": percentiles(times), **{name: round(value * 1000 / looks, 2) for name, value in busy.items()}}


def measure(arguments: argparse.Namespace) -> Any:
    """Return what a refresh takes, and what `lanes status` does beside it."""
    with bench_broker() as broker:
        fill(broker, arguments.jobs, arguments.tenants, arguments.models)
        overview = Overview(broker.app, "celery")
        looks = {"top": overview.look, "status": lambda: get_queue_stats(broker.app)}
        figures = {name: timed(broker, arguments.looks, look) for name, look in looks.items()}
        broker.client.config_resetstat()
        assert overview.look()["lanes"]["batch"]["depth"] == arguments.jobs
        scripts = broker.client.info("commandstats")["cmdstat_evalsha"]["calls"]
    return figures | {"scripts": scripts}


def say(figures: Any) -> str:
    """Return a line for each."""
    return "\n".join(
        f"lanes {name}: {each['ms']['p50']} ms a look (p95 {each['ms']['p95']}, max {each['ms']['max']}), "
        f"{each['cpu_ms']} ms of the command's processor and {each['redis_cpu_ms']} ms of Redis'"
        for name, each in figures.items()
        if name != "scripts"
    )


if __name__ == "__main__":
    main(__doc__, measure, say, jobs=1_000_000, tenants=1_000, models=3, looks=100)
