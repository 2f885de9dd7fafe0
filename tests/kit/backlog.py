"""A backlog of many tenants and models, as large as it gets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from celery_app.broker.packet import Packet, cost_header
from celery_app.budget import Budget, Cost
from celery_app.lanes import BATCH, LANES
from celery_app.routing import COST, MODEL, TENANT
from celery_app.scheduler.scripts import PUBLISH_MANY
from celery_app.settings import Limits

if TYPE_CHECKING:
    from kit.broker import Broker

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
