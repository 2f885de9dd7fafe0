"""Stock Celery as its documentation advises for this case: what the lanes are measured against."""

from __future__ import annotations

import os
import random
from typing import Any

from celery import Celery
from kombu import Exchange, Queue

app = Celery("stock", broker=os.environ["CELERY_BROKER_URL"], backend=os.environ["CELERY_BROKER_URL"])
app.conf.update(
    task_queues=[Queue(name, Exchange(name), routing_key=name) for name in ("critical", "normal", "batch")],
    broker_transport_options={"queue_order_strategy": "priority", "max_connections": 200},
    worker_pool="threads",
    worker_prefetch_multiplier=1,
    task_acks_late=True,
    broker_pool_limit=200,
)
PRIORITY = {"critical": 0, "normal": 3, "batch": 6}

_client: Any = None


def client() -> Any:
    """Return the process's SDK client."""
    global _client  # noqa: PLW0603
    if _client is None:
        import anthropic

        _client = anthropic.Anthropic(
            api_key=os.environ["EZAI_API_KEY"], base_url=os.environ["EZAI_BASE_URL"], max_retries=0
        )
    return _client


@app.task(bind=True, name="stock.create_message", max_retries=None)
def create_message(self: Any, **params: Any) -> Any:
    """Call, and on 429 come back after the time the API says, with jitter."""
    import anthropic

    try:
        return client().messages.create(**params).to_dict()
    except anthropic.RateLimitError as exc:
        after = float(exc.response.headers.get("retry-after", 1))
        raise self.retry(exc=exc, countdown=after * random.uniform(1, 2)) from exc
