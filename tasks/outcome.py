"""How a job's outcome reaches those who wait for it: the caller of `ask`, and the batch that it belongs to."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import redis

from celery_app.away import say_away
from celery_app.connection import key_prefix, redis_client
from celery_app.job_headers import BATCH_HEADER, REPLY_HEADER, batch_id_of
from celery_app.keys import BATCH, BATCH_ENDED, BATCH_FAILED, BATCH_KEPT, BATCH_SEEN, DONE, DONE_KEPT
from celery_app.script import Script
from celery_app.stand_in import stand_in

if TYPE_CHECKING:
    from tasks.base import LaneTask

Outcome: TypeAlias = Literal["done", "failed", "cancelled"]

#: The last job of a batch that is counted: each has a bit in Redis, so that a made up id takes 12 MB at most.
LAST_INDEX = 100_000_000

TALLY = Script("tally", package="celery_app.client")


def tell_outcome(task: LaneTask, outcome: Outcome, value: Any = None) -> None:
    """Tell that the job in hand has ended; its result is in the result backend already.

    Args:
        task: with the job in hand.
        outcome: how it ended.
        value: its result, if it is done.
    """
    if stand_in() is not None:
        return  # it has seen for itself
    try:
        if task.request.get(REPLY_HEADER):
            _reply(task, json.dumps(value) if outcome == "done" else "")
        if task.request.get(BATCH_HEADER):
            _tally(task, outcome)
    except redis.RedisError as exc:
        # The caller of `ask` looks into the result backend, too, before it gives up.
        say_away("the outcome of a job could not be told", exc)


def _reply(task: LaneTask, text: str) -> None:
    key = DONE.of(key_prefix(task.app), task.request.id)
    with redis_client(task.app).pipeline(transaction=False) as pipeline:
        pipeline.rpush(key, text)
        pipeline.expire(key, DONE_KEPT)
        pipeline.execute()


def _tally(task: LaneTask, outcome: Outcome) -> None:
    try:
        batch_id, index = batch_id_of(task.request.id)
    except ValueError:
        return  # a stock producer's header: no job of a batch has such an id
    if index > LAST_INDEX:
        return
    keys = [key.of(key_prefix(task.app), batch_id) for key in (BATCH, BATCH_SEEN, BATCH_ENDED, BATCH_FAILED)]
    TALLY.run(redis_client(task.app), keys, (index, outcome, BATCH_KEPT))
