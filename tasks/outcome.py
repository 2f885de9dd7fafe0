"""How a job's outcome reaches those who wait for it: the caller of `ask`, its batch, the readers of its stream."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import redis

from celery_app.connections.redis_client import key_prefix, redis_client
from celery_app.errors import error_event
from celery_app.jobs.headers import batch_id_of
from celery_app.keys import (
    BATCH_COUNTS,
    BATCH_ENDED,
    BATCH_FAILED,
    BATCH_KEPT,
    BATCH_SEEN,
    DONE,
    DONE_KEPT,
    STREAM_TASK,
)
from celery_app.process.away import say_away
from celery_app.script import Script
from celery_app.stand_in import stand_in
from tasks.relay import end_failed

if TYPE_CHECKING:
    from tasks.job import Job

Outcome: TypeAlias = Literal["done", "failed", "cancelled"]

#: The last job of a batch that is counted: each has a bit in Redis, so that a made up id takes 12 MB at most.
LAST_INDEX = 100_000_000

TALLY = Script("tally", package="celery_app.client")


def tell_done(job: Job, value: Any) -> None:
    """Tell that a job is done; its result is in the result backend already, and its stream has its message."""
    _tell(job, "done", json.dumps(value) if job.replies else "")


def tell_ended(job: Job, outcome: Outcome, error: Exception) -> None:
    """Tell that a job has ended without a result: it has failed, or was cancelled."""
    _tell(job, outcome, "")
    if job.task == STREAM_TASK and stand_in() is None:
        try:
            end_failed(job.app, job.id, json.dumps(error_event(error)).encode())
        except redis.RedisError:
            return  # its readers find the state in the result backend, once that is back


def _tell(job: Job, outcome: Outcome, text: str) -> None:
    if stand_in() is not None:
        return  # it has seen for itself
    try:
        if job.replies:
            _reply(job, text)
        if job.batch:
            _tally(job, outcome)
    except redis.RedisError as exc:
        # The caller of `ask` looks into the result backend, too, before it gives up.
        say_away("the outcome of a job could not be told", exc)


def _reply(job: Job, text: str) -> None:
    key = DONE.of(key_prefix(job.app), job.id)
    with redis_client(job.app).pipeline(transaction=False) as pipeline:
        pipeline.rpush(key, text)
        pipeline.expire(key, DONE_KEPT)
        pipeline.execute()


def _tally(job: Job, outcome: Outcome) -> None:
    try:
        batch_id, index = batch_id_of(job.id)
    except ValueError:
        return  # a stock producer's header: no job of a batch has such an id
    if index > LAST_INDEX:
        return
    keys = [key.of(key_prefix(job.app), batch_id) for key in (BATCH_COUNTS, BATCH_SEEN, BATCH_ENDED, BATCH_FAILED)]
    TALLY.run(redis_client(job.app), keys, (index, outcome, BATCH_KEPT))
