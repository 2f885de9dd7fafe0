"""The shop's configuration, none of it chosen with lanes in mind."""

from __future__ import annotations

import os
import re
from typing import Any

from kombu import Queue

broker_url = os.environ["SHOP_BROKER"]
#: A variant of the shop stores no results at all.
result_backend = os.environ.get("SHOP_BACKEND") or None

# The shop's own serializer: its jobs carry objects.
accept_content = ["pickle", "json"]
task_serializer = "pickle"
result_serializer = "pickle"
result_accept_content = ["pickle", "json"]

worker_prefetch_multiplier = 4
task_default_retry_delay = 0.1
task_send_sent_event = False
beat_schedule = {"tick": {"task": "shop.tasks.tick", "schedule": 0.5}}
broker_transport_options = {
    "queue_order_strategy": "priority",
    "priority_steps": [0, 3, 6, 9],
    "visibility_timeout": 3,
    "unacked_restore_interval": 1,
    "unacked_restore_throttle": 1,
}


def by_region(name: str, args: Any, kwargs: Any, options: Any, task: Any = None, **_: Any) -> Any:
    """Route by an argument."""
    return {"queue": f"region-{kwargs['region']}"} if "region" in (kwargs or {}) else None


task_routes = (
    by_region,
    {"shop.tasks.mail": {"queue": "emails"}, "shop.reports.*": "reports"},
    [(re.compile(r"shop\.(images|videos)\..*"), {"queue": "media"})],
)
task_queues = [
    Queue(name, routing_key=name) for name in ("celery", "emails", "reports", "media", "region-eu", "io", "cards")
] + [Queue("ranked", routing_key="ranked", max_priority=9)]
