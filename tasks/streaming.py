"""The task around a streamed answer of the Messages API."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from celery import shared_task

from celery_app.keys import STREAM_TASK
from tasks.messages import MessageTask, api_of, perform, sdk_arguments
from tasks.whole_events import events_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping
    from contextlib import AbstractAsyncContextManager

    from tasks.call import Call
    from tasks.job import Job
    from tasks.relay import RelayedStream

#: Seconds that the end of an answer may take behind its message: in one packet with it, or in the next.
DRAIN_SECONDS = 0.05


@shared_task(bind=True, base=MessageTask, name=STREAM_TASK)
def stream_message(self: MessageTask, **params: Any) -> dict[str, Any]:
    """Create a message and pass its events on as they come; arguments and result are those of ``create_message``."""
    return perform(self, params, _stream)


def _stream(job: Job, params: Mapping[str, Any], timeout: float, call: Call) -> dict[str, Any]:
    from tasks.clients import call_timeout
    from tasks.loop import run

    stream, api = _relayed(job), api_of(job)
    try:
        arguments = {**sdk_arguments(params), "stream": True, "timeout": call_timeout(timeout)}
        opening = partial(api.with_streaming_response.create, **arguments)
        message, headers = run(lambda: _passed_on(opening, call, stream, params["model"]), timeout)
        call.answered(message, headers)
        stream.end(json.dumps(message).encode())
    except BaseException:
        stream.flush()  # what the next attempt writes has to come behind
        raise
    return message


async def _passed_on(
    opening: Callable[[], AbstractAsyncContextManager[Any]], call: Call, stream: RelayedStream, model: str
) -> tuple[dict[str, Any], Mapping[str, str]]:
    """Pass a stream on; return its message, and the headers of the answer."""
    async with AsyncExitStack() as answer:
        response = (await answer.enter_async_context(opening())).http_response
        # Redis is asked by a thread: no other stream waits for it.
        heard = asyncio.get_running_loop().run_in_executor(None, call.begun, response.headers)
        chunks = response.aiter_bytes()
        message = await _pass_on(response, chunks, stream, model)
        await heard
        _drained(chunks, answer.pop_all())
    return message, response.headers


def _relayed(job: Job) -> RelayedStream:
    from celery_app.connections.redis_client import stream_key
    from tasks.relay import RelayedStream, relay_for

    key = stream_key(job.app, job.id)
    return RelayedStream(relay_for(job.app), key, anew=bool(job.redelivered and _may_have_begun(job, key)))


def _may_have_begun(job: Job, key: str) -> bool:
    """Return whether an attempt before has written something; where Redis is away it may.

    One restart more harms nobody; raised from within the job the error would be its end.
    """
    import redis

    from celery_app.connections.redis_client import redis_client

    try:
        return bool(redis_client(job.app).exists(key))
    except redis.RedisError:
        return True


async def _pass_on(response: Any, chunks: AsyncIterator[bytes], stream: RelayedStream, model: str) -> dict[str, Any]:
    """Pass the events on until the message is complete; what an API may send behind it is nobody's business.

    Raises:
        NotAMessage: it is no answer of the Messages API.
        StreamCutShort: the stream ended too early.
        anthropic.APIStatusError: the API ended the stream with an error.
        httpx2.RequestError: the connection was lost, or the answer cannot be read.
    """
    from tasks.incoming import STREAM_TYPE, Incoming  # brings redis-py along

    if STREAM_TYPE not in response.headers.get("content-type", "").lower():
        return _pass_on_whole(response, b"".join([chunk async for chunk in chunks]), stream, model)
    incoming, has_begun = Incoming(response, model), False
    async for chunk in chunks:
        # The first token goes at once, and what the API says before it.
        lines = _write(stream, incoming.feed(chunk), at_once=not has_begun)
        has_begun = has_begun or any(b"content_block_delta" in line for line in lines)
        if incoming.complete:
            return incoming.message()
    _write(stream, incoming.end())
    if incoming.complete:
        return incoming.message()
    return _pass_on_whole(response, incoming.body(), stream, model)


def _write(stream: RelayedStream, lines: Iterable[bytes], *, at_once: bool = False) -> list[bytes]:
    """Pass lines on, those before an error, too; return them."""
    ready: list[bytes] = []
    try:
        ready.extend(lines)
    finally:
        if ready:
            stream.write(ready, at_once=at_once)
    return ready


def _pass_on_whole(response: Any, body: bytes, stream: RelayedStream, model: str) -> dict[str, Any]:
    """Pass on what was sent as a whole: by a gateway that does not stream, or gives its stream another name."""
    from tasks.incoming import message_in

    message = message_in(response, body, model)
    stream.write([json.dumps(event).encode() for event in events_of(message)], at_once=True)
    return message


#: Tasks that read the ends of answers: a loop alone does not keep them.
_draining: set[asyncio.Task[None]] = set()


def _drained(chunks: AsyncIterator[bytes], answer: AsyncExitStack) -> None:
    """Read what ends an answer, so that its connection can serve the next call; its job does not wait for that."""
    task = asyncio.ensure_future(_drain(chunks, answer))
    _draining.add(task)
    task.add_done_callback(_draining.discard)


async def _drain(chunks: AsyncIterator[bytes], answer: AsyncExitStack) -> None:
    """Read to the end and close; an API that keeps it open loses the connection."""
    import httpx2

    async with answer:
        with suppress(httpx2.HTTPError, httpx2.StreamError, TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                async for _ in chunks:
                    pass
