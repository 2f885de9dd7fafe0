"""Lanes with jobs that cost money, on the scheduler's own scripts."""

from typing import Any

from redis import Redis

from celery_app.budget import Budget, Cost, Usage, budget_for
from celery_app.budget.quota import Quota, write_caps
from celery_app.lanes import BATCH, LANES
from celery_app.metrics.shortage import Shortage, explain_arguments
from celery_app.scheduler.scripts import CONTROL, EXPLAIN
from celery_app.settings import Limits, Settings
from kit.clock import ClockedRedis
from kit.scheduler import Scheduler

DOLLAR = 10**9


def cost(cents: int) -> Cost:
    """Return the cost of a call with a price, and of no token."""
    return Cost(output_tokens=0, usd=cents * DOLLAR // 100)


def used(cents: int) -> Usage:
    """Return what such a call has really cost."""
    return Usage(0, 0, cents * DOLLAR // 100)


class Money(Scheduler):
    """A scheduler whose jobs cost money, on one budget without a limit."""

    def __init__(self, redis: Redis, start: float = 0.0, **settings: Any) -> None:
        super().__init__(ClockedRedis(redis))
        self.client.now = start
        self.settings = Settings(**{"limits": Limits(rpm=1_000_000, concurrency=1_000), **settings})
        if self.settings.caps:
            write_caps(self.client, "", self.settings)

    def budget(self, model: str = "m") -> Budget:
        """Return a model's budget."""
        return budget_for(self.settings, BATCH, model)

    def add(self, name: str, cents: int = 100, lane: Any = BATCH, **options: Any) -> None:
        """Put a job that costs so much."""
        self.put(self.budget(options.pop("model", "m")), lane, name, cost(cents), **options)

    def set_cap(self, name: str, dollars: float | None) -> None:
        """Set a cap at run time, or take it away."""
        value = "" if dollars is None else round(dollars * DOLLAR)
        CONTROL.run(self.client, (), ("", "ann", f"cap|{name}", value, 0))

    def why(self, name: str) -> tuple[str, Quota | None]:
        """Tell what a job is short of."""
        (row,) = EXPLAIN.run(self.client, (), explain_arguments("", LANES, name, [1.0] * len(LANES)))
        found = Shortage.of(row)
        return found.short, found.quota

    def spent(self, name: str) -> int:
        """Return the cents that a cap counts."""
        return int(float(self.raw.hget(f"lanes:quota:{name}", "usd") or 0)) * 100 // DOLLAR
