"""Priority lanes for LLM calls on Celery: a chat request never waits behind a batch."""

from typing import Any

from celery_app.app import app, create_app, install
from celery_app.lanes import BATCH, CRITICAL, LANES, NORMAL, Lane

__all__ = [
    "BATCH",
    "CRITICAL",
    "LANES",
    "NORMAL",
    "Batch",
    "Lane",
    "aask",
    "acancel",
    "app",
    "ask",
    "astream",
    "astream_from",
    "cancel",
    "create_app",
    "explain",
    "get_queue_stats",
    "install",
    "stream",
    "stream_from",
    "submit",
    "submit_many",
]


def __getattr__(name: str) -> Any:
    """Import on first use what a web process may never need."""
    if name == "get_queue_stats":
        from celery_app.metrics.stats import get_queue_stats

        return get_queue_stats
    if name in __all__:
        from celery_app import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
