"""Ask, and wait for the answer."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from celery_app.client.cancelling import cancel
from celery_app.client.sending import CREATE_TASK, lane_of, send
from celery_app.connections.redis_client import broker_errors, key_prefix, redis_client
from celery_app.errors import DeadlineExceeded
from celery_app.jobs.headers import REPLY_HEADER
from celery_app.keys import DONE
from celery_app.stand_in import refuse_to_wait, stand_in

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anthropic.types import Message
    from celery.result import AsyncResult

    from celery_app.lanes import Lane

#: Seconds for which Redis is asked to wait in one command: half of the time in which it has to answer
#: (`celery_app.jobs.publishing.REPLY_TIMEOUT`), so that a busy one is not taken for dead. After each the result backend
#: is looked at, in case the reply was lost on its way.
WAIT = 0.7

REPLY_HEADERS = {REPLY_HEADER: 1}


def ask(app: Any, lane_name: str, params: Mapping[str, Any], names: Mapping[str, Any]) -> Message:
    """Send a call and wait for its message; see `Client.ask`."""
    refuse_to_wait("ask()")
    lane = lane_of(app, lane_name)
    until = deadline_of(lane.deadline)
    result = send(app, CREATE_TASK, lane, params, REPLY_HEADERS, **names)
    message_class()  # a second, once in a process: while the API works, not before
    with broker_errors(app):
        reply = _reply(app, result, until)
    if reply is None:
        cancel(app, result)
        raise unanswered(app, lane)
    return message_of(reply, result)


def unanswered(app: Any, lane: Lane) -> DeadlineExceeded:
    """Return the error for a caller that has waited for as long as its lane allows."""
    from celery_app.worker.presence import why_silent  # brings redis-py along

    where = f"before there is an answer{why_silent(app, lane.name)}"
    return DeadlineExceeded(where=where, allowed=lane.deadline or 0)


def deadline_of(seconds: float | None) -> float:
    """Return the ``time.monotonic()`` at which `seconds` are over; None: never."""
    return float("inf") if seconds is None else time.monotonic() + seconds


def reply_key(app: Any, task_id: str) -> str:
    """Return the key of the list that a job's outcome comes through."""
    return DONE.of(key_prefix(app), task_id)


def message_of(reply: bytes, result: AsyncResult) -> Message:
    """Return the message that a job's reply contains.

    Raises:
        LanesError: the job has failed; this is how.
    """
    fields = json.loads(reply) if reply else result.maybe_throw()
    return message_class().construct(**fields)


def message_class() -> type[Message]:
    """Return the SDK's class of messages; its import takes a second."""
    from anthropic.types import Message

    return Message


def _reply(app: Any, result: AsyncResult, until: float) -> bytes | None:
    """Return what the worker told, empty if the result backend has to be asked, None if `until` has passed."""
    if stand_in() is not None:
        return b"" if result.ready() else None  # it is held, and nobody in a test has the time to wait for that
    client, key = redis_client(app), reply_key(app, result.id)
    while (left := until - time.monotonic()) > 0:
        # One connection for each waiting thread, and one command: no subscription that threads have to share.
        popped: Any = client.blpop([key], timeout=min(left, WAIT))
        if popped is not None:
            return bytes(popped[1])
        if result.ready():
            return b""
    return None
