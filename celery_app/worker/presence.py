"""Which lanes are served: each worker leaves a sign of life, for whoever waits for an answer that does not come."""

from __future__ import annotations

import uuid
from functools import partial
from typing import TYPE_CHECKING, Any

import redis
from celery import bootsteps
from celery.concurrency.solo import TaskPool as SoloPool

from celery_app.broker.lane_stats import lane_stats
from celery_app.broker.rules import LANE_NAMES
from celery_app.connections.redis_client import heartbeat_client, key_prefix, redis_client
from celery_app.keys import WORKERS
from celery_app.process.heartbeat import HEARTBEAT, Entry
from celery_app.scheduler.scripts import PRESENT, SERVING
from celery_app.settings import settings_of
from celery_app.stand_in import stand_in

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Seconds between two signs of life: one command for each worker process. One lasts for three (lib/workers.lua).
SIGN_EVERY = 5.0


class Presence(bootsteps.StartStopStep):
    """The step of a worker's start that says which lanes it serves; one that serves none says nothing."""

    name = "lanes-presence"

    def __init__(self, worker: Any, **options: Any) -> None:
        self._id = uuid.uuid4().hex
        self._signing = Entry("say that this worker is here", SIGN_EVERY, partial(self._give_sign, worker))
        super().__init__(worker, **options)

    def include_if(self, worker: Any) -> bool:
        """Return whether it serves a lane."""
        return bool(_served(worker.app))

    def start(self, worker: Any) -> None:
        """Give a sign of life from now on."""
        HEARTBEAT.wake(self._signing, at_once=True)

    def close(self, worker: Any) -> None:
        """Take it away once the worker claims no more; it may have jobs to finish for minutes."""
        HEARTBEAT.end(self._signing)
        try:
            _leave(worker.app, self._name(worker))
        except redis.RedisError:
            return  # it lapses

    stop = terminate = close

    def _give_sign(self, worker: Any) -> bool:
        app = worker.app
        PRESENT.run(heartbeat_client(app), (), [key_prefix(app), self._name(worker), *_served(app)])
        return True

    def _name(self, worker: Any) -> str:
        slots = 1 if issubclass(worker.pool_cls, SoloPool) else worker.concurrency
        return f"{self._id}:{slots}"


def serving_call(lanes: Iterable[str], prefix: str) -> tuple[list[str], list[str]]:
    """Return KEYS and ARGV of `SERVING`, which counts the workers of each lane and their slots."""
    return [], [prefix, *lanes]


def unserved(lane: str) -> str:
    """Return the words for a lane that has no worker."""
    return f"no worker serves {lane}"


def why_silent(app: Any, lane: str | None) -> str:
    """Return what may be the reason that a job of a lane has not ended, for the end of a sentence; perhaps nothing.

    Args:
        app: the Celery application.
        lane: its name; None: not known.
    """
    if lane is None or stand_in() is not None:
        return ""
    client, prefix = redis_client(app), key_prefix(app)
    try:
        workers, _slots = SERVING.run(client, *serving_call([lane], prefix))[0]
        if not workers:
            return f": {unserved(lane)}"
        known = settings_of(app).lane(lane)
        queued = lane_stats(client, [known], prefix)[lane].depth if known else 0
    except redis.RedisError:
        return ""
    return f" ({queued:,} jobs are queued in {lane})" if queued else ""


def _served(app: Any) -> list[str]:
    consumed = app.amqp.queues.consume_from
    return [name for name in LANE_NAMES if name in consumed]


def _leave(app: Any, name: str) -> None:
    client, prefix = heartbeat_client(app), key_prefix(app)
    with client.pipeline(transaction=False) as pipeline:
        for lane in LANE_NAMES:
            pipeline.zrem(WORKERS.of(prefix, lane), name)
        pipeline.execute()
