"""These lanes, started as the README says: a worker for critical alone, and one for all lanes.

README.md, "Start the workers", and docs/budget.md, with the limit in EZAI_RPM.
"""

from __future__ import annotations

from typing import Any

from celery_app import create_app
from celery_app.client import Client
from celery_app.metrics.stats import get_queue_stats
from contenders.contender import RATE, Contender
from tasks import LaneTask, create_message

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
            self.rig.worker("critical", "-Q", "critical", "-c", str(reserved), app="contenders.lanes", **env)
        self.rig.worker("shared", "-Q", "critical,normal,batch", "-c", str(shared), app="contenders.lanes", **env)
        self.calls = app.tasks[create_message.name]

    def submit(self, lane: str, params: dict[str, Any]) -> None:
        """Submit as Celery does."""
        self.calls.apply_async(kwargs=params, queue=lane)

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
