"""Ask, and wait for the answer without blocking an event loop."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from celery_app.client.asking import (
    REPLY_HEADERS,
    WAIT,
    deadline_of,
    message_class,
    message_of,
    reply_key,
    unanswered,
)
from celery_app.client.async_connection import connected
from celery_app.client.cancelling import cancel
from celery_app.client.sending import CREATE_TASK, lane_of, send
from celery_app.connections.redis_client import broker_errors
from celery_app.stand_in import refuse_to_wait, stand_in

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anthropic.types import Message
    from celery.result import AsyncResult


async def aask(app: Any, lane_name: str, params: Mapping[str, Any], names: Mapping[str, Any]) -> Message:
    """Send a call and wait for its message; see `Client.aask`."""
    refuse_to_wait("aask()")
    lane = lane_of(app, lane_name)
    until = deadline_of(lane.deadline)
    result = await asyncio.to_thread(send, app, CREATE_TASK, lane, params, REPLY_HEADERS, **names)
    try:
        await asyncio.to_thread(message_class)  # imports the SDK, once in a process
        with broker_errors(app):
            reply = await _reply(app, result, until)
    except asyncio.CancelledError:
        await asyncio.shield(asyncio.to_thread(cancel, app, result))
        raise
    if reply is None:
        await asyncio.to_thread(cancel, app, result)
        raise await asyncio.to_thread(unanswered, app, lane)
    return message_of(reply, result) if reply else await asyncio.to_thread(message_of, reply, result)


async def _reply(app: Any, result: AsyncResult, until: float) -> bytes | None:
    if stand_in() is not None:
        return b"" if await asyncio.to_thread(result.ready) else None
    key = reply_key(app, result.id)
    async with connected(app) as client:
        while (left := until - time.monotonic()) > 0:
            popped: Any = await client.blpop([key], timeout=min(left, WAIT))
            if popped is not None:
                return bytes(popped[1])
            if await asyncio.to_thread(result.ready):
                return b""
    return None
