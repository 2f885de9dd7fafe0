"""Cancel a job, wherever it is."""

from __future__ import annotations

from typing import Any

from celery.states import READY_STATES, REVOKED

from celery_app.connections.redis_client import broker_errors, key_prefix, redis_client
from celery_app.errors import Cancelled
from celery_app.keys import CANCEL, CANCEL_KEPT
from celery_app.results.backend import backend_of
from celery_app.stand_in import stand_in


def cancel(app: Any, job: Any) -> bool:
    """Cancel a job; see `Client.cancel`."""
    from celery_app.broker.verdict import may_cancel  # brings redis-py along

    task_id = id_of(job)
    with broker_errors(app):
        backend = backend_of(app)
        if backend.get_state(task_id) in READY_STATES:
            return False
        if stand_in() is not None:
            mark(app, task_id)
        elif not may_cancel(app, task_id):
            return False
        # At once, for whoever waits for a job that is still far back in its lane.
        backend.store_result(task_id, Cancelled(), REVOKED)
    return True


def id_of(job: Any) -> str:
    """Return the id of a job, given as such, as its result or as its stream."""
    return job if isinstance(job, str) else str(getattr(job, "task_id", None) or job.id)


def mark(app: Any, job_or_batch_id: str) -> None:
    """Leave the mark that workers look for before a job starts, while its call runs and before it ends."""
    standing_in = stand_in()
    if standing_in is not None:
        standing_in.cancel(job_or_batch_id)
        return
    redis_client(app).set(CANCEL.of(key_prefix(app), job_or_batch_id), 1, ex=CANCEL_KEPT)
