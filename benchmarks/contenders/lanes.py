"""These lanes, started as the README says: a worker for critical alone, and one for all lanes.

README.md, "Start the workers", and docs/budget.md, with the limit in EZAI_RPM.
"""

from __future__ import annotations

import json
import uuid
from typing import Any

from celery_app import create_app
from celery_app.broker.packet import Packet
from celery_app.client import Client
from celery_app.lanes import BATCH
from celery_app.metrics.stats import get_queue_stats
from celery_app.scheduler.scripts import PUBLISH_MANY
from contenders.contender import RATE, Contender
from tasks import LaneTask, create_message

#: Jobs that one script queues.
CHUNK = 500

app = create_app()


@app.task(base=LaneTask, name="bench.nothing", ignore_result=True)
def nothing() -> None:
    """Do nothing."""


class Lanes(Contender):
    """The lanes."""

    def start(self, reserved: int, shared: int, *, limited: bool, **env: str) -> None:
        """Start a worker for critical and one for all."""
        env |= {"EZAI_RPM": str(RATE * 60)} if limited else {}
        if reserved:
            self.rig.begin_worker("critical", "-Q", "critical", "-c", str(reserved), app="contenders.lanes", **env)
        self.add_worker("shared", shared, **env)

    def add_worker(self, name: str, slots: int, **env: str) -> None:
        """Start one for all lanes."""
        self.rig.begin_worker(name, "-Q", "critical,normal,batch", "-c", str(slots), app="contenders.lanes", **env)

    def submit(self, lane: str, params: dict[str, Any], tenant: str = "") -> None:
        """Submit as Celery does."""
        app.tasks[create_message.name].apply_async(kwargs=params, queue=lane, **({"tenant": tenant} if tenant else {}))

    def fill(self, jobs: int, params: dict[str, Any] | None = None) -> None:
        """Queue one as ever, and copies of its text by the script that queues many."""
        task = app.tasks[create_message.name] if params else nothing
        text: Any = None
        while text is None:  # a worker may have been faster
            one = task.apply_async(kwargs=params, queue="batch", ignore_result=True).id
            text = self.rig.redis.hget("lanes:texts", one)
        headers = json.loads(text)["headers"]
        for first in range(1, jobs, CHUNK):
            ids = [uuid.uuid4().hex for _ in range(min(CHUNK, jobs - first))]
            texts = (text.replace(one.encode(), each.encode()) for each in ids)
            packets = (
                Packet(each, of_it, BATCH.priority, {**headers, "id": each}, "", 0.0)
                for each, of_it in zip(ids, texts, strict=True)
            )
            facts = [part for packet in packets for part in packet.arguments()]
            PUBLISH_MANY.run(self.rig.redis, (), ("", "batch", 2 * jobs, ids[0], 60, 0, *facts))

    def submit_many(self, calls: list[dict[str, Any]], tenant: str) -> None:
        """Submit calls of a tenant."""
        Client(app).submit_many(calls, tenant=tenant)

    def submit_nothing(self, jobs: int) -> None:
        """Queue jobs of a project's own task."""
        for _ in range(jobs):
            nothing.apply_async(queue="batch")

    def failed(self) -> int:
        """Ask for the lanes' own figures: their log leaves out what is too much to read."""
        return sum(int(lane["failed"]) for lane in get_queue_stats(app)["lanes"].values())

    def left(self) -> int:
        """Likewise."""
        stats = get_queue_stats(app)
        return int(stats["queue_depth"] + sum(lane["in_flight"] for lane in stats["lanes"].values()))
