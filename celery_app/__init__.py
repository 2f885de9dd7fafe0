"""Priority lanes for LLM calls on Celery: a chat request never waits behind a batch."""

from typing import Any

from celery_app.app import app, create_app, install
from celery_app.lanes import BATCH, CRITICAL, LANES, NORMAL, Lane

__all__ = ["BATCH", "CRITICAL", "LANES", "NORMAL", "Lane", "app", "create_app", "get_queue_stats", "install"]


def __getattr__(name: str) -> Any:
    """Import on first use what a web process may never need."""
    if name == "get_queue_stats":
        from celery_app.metrics.stats import get_queue_stats

        return get_queue_stats
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
