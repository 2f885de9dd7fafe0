"""Whether a job ends by itself or is cancelled: Redis decides once, for whoever comes first."""

from __future__ import annotations

import logging
from typing import Any

import redis
from celery.exceptions import Ignore

from celery_app.connections.redis_client import key_prefix, redis_client
from celery_app.keys import CANCEL_KEPT, ENDED, ENDED_KEPT
from celery_app.scheduler.scripts import CANCEL, DECIDE

logger = logging.getLogger(__name__)

#: The script's answer for a failure of a job that is in other hands.
_ELSEWHERE = 2


def may_cancel(app: Any, task_id: str) -> bool:
    """Decide that a job is cancelled; return False if it has ended already, its result may be on its way.

    Raises:
        redis.exceptions.RedisError: if Redis is away.
    """
    return bool(CANCEL.run(redis_client(app), (), (key_prefix(app), task_id, CANCEL_KEPT)))


def may_end(app: Any, task_id: str, batch_id: str | None, claim: tuple[str, str] = ("", "")) -> bool:
    """Decide that a job has ended with a result or an error; return False if it was cancelled before.

    While Redis is away nobody can cancel, and what was paid for stands.

    Args:
        app: the Celery application.
        task_id: the job's.
        batch_id: of its batch, if it has one.
        claim: of a job that fails, the id of its record and the token of the claim.

    Raises:
        celery.exceptions.Ignore: it was given to somebody else meanwhile, and that one's failures count.
    """
    try:
        verdict = DECIDE.run(redis_client(app), (), (key_prefix(app), task_id, batch_id or "", ENDED_KEPT, *claim))
    except redis.RedisError as exc:
        logger.warning("cancellations cannot be seen at the moment: %s", exc)
        return True
    if verdict == _ELSEWHERE:
        raise Ignore
    return bool(verdict)


def hold_end(app: Any, task_id: str) -> None:
    """Have a decision last until the result is stored, however long that takes."""
    try:
        redis_client(app).expire(ENDED.of(key_prefix(app), task_id), ENDED_KEPT)
    except redis.RedisError:
        return  # the next try
