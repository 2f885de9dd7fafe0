"""What is asked of a job before it costs anything: whether anybody still wants it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import redis

from celery_app.budget.shut import shut_of
from celery_app.connections.redis_client import key_prefix, redis_client
from celery_app.errors import DeadlineExceeded
from celery_app.keys import SHUT
from tasks.cancelling import is_cancelled
from tasks.endings import cancelled, may_end

if TYPE_CHECKING:
    from tasks.job import Job


def check(job: Job) -> None:
    """End a job that was cancelled, or whose deadline passed, in the queue.

    Raises:
        Cancelled: if it was.
        DeadlineExceeded: if it did; it says so if the API had shut the job's budget meanwhile.
    """
    if job.is_sent and is_cancelled(job):
        cancelled(job)
    try:
        job.seconds_left()
    except DeadlineExceeded:
        if not may_end(job, fails=True):
            cancelled(job)
        if not job.claim:
            raise
        raise job.overdue(in_queue(job.app, job.lane.name)) from None


def in_queue(app: Any, lane: str) -> str:
    """Say where a job was until its deadline passed, and what it waited for if the API had shut its budget."""
    try:
        client = redis_client(app)
        shut: Any = client.hgetall(SHUT.of(key_prefix(app)))
        seconds, _ = client.time()
    except redis.RedisError:
        return "in the queue"
    why = "; ".join(each.words for each in shut_of(shut, lane, seconds))
    return f"in the queue, where it waited for {why}" if why else "in the queue"
