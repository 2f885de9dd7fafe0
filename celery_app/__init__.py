"""Priority lanes for LLM calls on Celery: a chat request never waits behind a batch."""

from celery_app.app import app, create_app, install
from celery_app.lanes import BATCH, CRITICAL, LANES, NORMAL, Lane

__all__ = ["BATCH", "CRITICAL", "LANES", "NORMAL", "Lane", "app", "create_app", "install"]
