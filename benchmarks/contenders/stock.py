"""Stock Celery on Redis, as its documentation advises for this case.

A queue for each lane and a worker of its own for the urgent one, and `queue_order_strategy: priority` with priorities
(https://docs.celeryq.dev/en/stable/userguide/routing.html#redis-message-priorities); a prefetch of one and late acks
for long tasks (https://docs.celeryq.dev/en/stable/userguide/optimizing.html#prefetch-limits); threads, since calls
wait for the network (https://docs.celeryq.dev/en/stable/userguide/concurrency/index.html); on 429 `Task.retry` with
the countdown that the API asks for and jitter (https://docs.celeryq.dev/en/stable/userguide/tasks.html#retrying):
`autoretry_for` does the same without knowing `retry-after`.

`RateLimited` has `rate_limit` as well. It is per worker, and for a global limit its documentation says to restrict a
queue to one (https://docs.celeryq.dev/en/stable/userguide/tasks.html#Task.rate_limit): so one worker serves all lanes.
"""

from __future__ import annotations

import json
import os
import random
import uuid
from typing import Any

from celery import Celery
from kombu import Exchange, Queue

from contenders.contender import RATE, TRANSIENT, Contender, client, retry_after

#: Messages that one command pushes.
CHUNK = 1_000
#: What Redis calls the list of a priority, behind its queue's name.
STEP = "\x06\x166"
PRIORITY = {"critical": 0, "normal": 3, "batch": 6}

app = Celery("stock", broker=os.environ["CELERY_BROKER_URL"], backend=os.environ["CELERY_BROKER_URL"])
app.conf.update(
    task_queues=[Queue(name, Exchange(name), routing_key=name) for name in PRIORITY],
    broker_transport_options={"queue_order_strategy": "priority", "max_connections": 200},
    worker_pool="threads",
    worker_prefetch_multiplier=1,
    task_acks_late=True,
    broker_pool_limit=200,
)


@app.task(bind=True, name="stock.create_message", max_retries=None, rate_limit=os.environ.get("STOCK_RATE_LIMIT"))
def create_message(self: Any, **params: Any) -> Any:
    """Call, and on 429 come back later."""
    return answer(self, params)


@app.task(name="stock.nothing", ignore_result=True)
def nothing() -> None:
    """Do nothing."""


def answer(task: Any, params: dict[str, Any]) -> Any:
    """Call, and on 429 or 500 come back after the time that the API says, with jitter."""
    try:
        return client().messages.create(**params).to_dict()
    except TRANSIENT as error:
        raise task.retry(exc=error, countdown=retry_after(error) * random.uniform(1, 2)) from error


class Stock(Contender):
    """A worker for critical and one for all."""

    failure, module, env = "] raised unexpected", "contenders.stock", ()
    task = create_message

    def start(self, reserved: int, shared: int, *, limited: bool) -> None:
        """Start the workers."""
        env = dict(self.env if limited else ())
        if reserved:
            self.rig.begin_worker("critical", "-Q", "critical", "-c", str(reserved), app=self.module, **env)
        self.add_worker("shared", shared, **env)

    def add_worker(self, name: str, slots: int, **env: str) -> None:
        """Start one for all queues."""
        self.rig.begin_worker(name, "-Q", "critical,normal,batch", "-c", str(slots), app=self.module, **env)

    def submit(self, lane: str, params: dict[str, Any], tenant: str = "") -> None:
        """Submit."""
        self.task.apply_async(kwargs=params, queue=lane, priority=PRIORITY[lane])

    def submit_nothing(self, jobs: int) -> None:
        """Queue jobs."""
        for _ in range(jobs):
            nothing.apply_async(queue="batch", priority=PRIORITY["batch"])

    def fill(self, jobs: int, params: dict[str, Any] | None = None) -> None:
        """Push copies, with ids of their own, of a message that goes where no worker takes it."""
        task, redis, key = (self.task if params else nothing), self.rig.redis, f"batch{STEP}"
        one = task.apply_async(kwargs=params, queue="template", priority=PRIORITY["batch"]).id
        text: Any = redis.rpop(f"template{STEP}").replace(b'"template"', b'"batch"')
        tag = json.loads(text)["properties"]["delivery_tag"]
        for first in range(0, jobs, CHUNK):
            names = [str(uuid.uuid4()).encode() for _ in range(min(CHUNK, jobs - first))]
            redis.lpush(key, *(text.replace(one.encode(), name).replace(tag.encode(), name) for name in names))

    def left(self) -> int:
        """Look at the lists of all priority steps, and at what is not acknowledged."""
        redis = self.rig.redis
        keys = [key for name in PRIORITY for key in (name, *redis.scan_iter(f"{name}\x06\x16*"))]
        queued = sum(int(redis.llen(key)) for key in keys if redis.type(key) == b"list")
        return queued + int(redis.hlen("unacked"))


class RateLimited(Stock):
    """One worker with `rate_limit`."""

    env = (("STOCK_RATE_LIMIT", f"{RATE}/s"),)

    def start(self, reserved: int, shared: int, *, limited: bool) -> None:
        """Start one worker with all slots."""
        super().start(0, reserved + shared, limited=limited)
