"""The task around a streamed answer of the Messages API."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

from celery import shared_task

from celery_app.errors import NotAMessage, error_event
from celery_app.stand_in import stand_in
from tasks.assembly import Assembly
from tasks.messages import MessageTask, api_of, perform, sdk_arguments
from tasks.redaction import content_type_of
from tasks.sse import EventParser

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tasks.admission import Call
    from tasks.relay import RelayedStream

#: The content type of a stream; anything else with status 200 is a gateway's page.
STREAM_TYPE = "text/event-stream"

#: How OpenAI's streams end, and those of some gateways in front of Anthropic's API.
DONE = b"[DONE]"

#: Seconds that the end of an answer may take behind its message: in one packet with it, or in the next.
DRAIN_SECONDS = 0.05


class StreamTask(MessageTask):
    """A task whose answer is read while it is produced."""

    abstract = True

    def on_end(self, error: Exception) -> None:
        """Tell the readers that no more will come."""
        if stand_in() is not None:
            return  # they see for themselves
        import redis

        from tasks.relay import end_failed

        try:
            end_failed(self.app, self.request.id, json.dumps(error_event(error)).encode())
        except redis.RedisError:
            return  # its readers find the state in the result backend, once that is back


@shared_task(bind=True, base=StreamTask, name="tasks.stream_message")
def stream_message(self: StreamTask, **params: Any) -> dict[str, Any]:
    """Create a message and pass its events on as they come; arguments and result are those of ``create_message``."""
    return perform(self, params, _stream)


def _stream(task: MessageTask, params: Mapping[str, Any], timeout: float, call: Call) -> dict[str, Any]:
    from tasks.deadline import deadline

    stream = _relayed(task)
    create = api_of(task).with_streaming_response.create
    try:
        with deadline(timeout), create(**sdk_arguments(params), stream=True, timeout=timeout) as answer:
            response = answer.http_response
            call.begun(response.headers)
            chunks = response.iter_bytes()
            message = _pass_on(response, chunks, stream)
            call.answered(message, response.headers)
            stream.end(json.dumps(message).encode())
            _drain(chunks)
    except BaseException:
        stream.flush()  # what the next attempt writes has to come behind
        raise
    return message


def _relayed(task: MessageTask) -> RelayedStream:
    from celery_app.connection import redis_client
    from tasks.relay import RelayedStream, relay_for, stream_key

    key = stream_key(task.app, task.request.id)
    been_out = task.request.retries or (task.request.delivery_info or {}).get("redelivered")
    anew = bool(been_out and redis_client(task.app).exists(key))
    return RelayedStream(relay_for(task.app), key, anew=anew)


def _pass_on(response: Any, chunks: Iterator[bytes], stream: RelayedStream) -> dict[str, Any]:
    """Pass the events on until the message is complete; what an API may send behind it is nobody's business.

    Raises:
        NotAMessage: it is no stream of the Messages API.
        anthropic.APIStatusError: the API ended the stream with an error.
        httpx2.TransportError: the connection was lost, or the stream ended too early.
    """
    if not response.headers.get("content-type", "").startswith(STREAM_TYPE):
        raise NotAMessage(status=response.status_code, content_type=content_type_of(response.headers))
    parser, assembly, has_begun = EventParser(), Assembly(), False
    for chunk in chunks:
        events = list(_added(response, assembly, parser.feed(chunk)))
        if events:
            # The first token goes at once, and what the API says before it.
            stream.write(events, at_once=not has_begun)
            has_begun = has_begun or any(b"content_block_delta" in data for data in events)
        if assembly.complete:
            return assembly.message()
    import httpx2

    raise httpx2.RemoteProtocolError("the stream ended before its message")


def _added(response: Any, assembly: Assembly, datas: Iterable[bytes]) -> Iterator[bytes]:
    """Add events to the message and give those of them that its readers know what to do with."""
    for data in datas:
        event = _event_of(data)
        if event is None:
            continue
        assembly.add(event)
        if event["type"] == "error":
            _raise_error(response, event)
        yield data
        if assembly.complete:
            return


def _event_of(data: bytes) -> dict[str, Any] | None:
    """Return an event of the Messages API; gateways add some of another API's, such as ``[DONE]``.

    Raises:
        NotAMessage: it is no JSON.
    """
    if data == DONE:
        return None
    try:
        event = json.loads(data)
    except ValueError:
        raise NotAMessage(status=200, content_type="an event that is no JSON") from None
    return event if isinstance(event, dict) and isinstance(event.get("type"), str) else None


def _drain(chunks: Iterator[bytes]) -> None:
    """Read what ends the answer, so that its connection can serve the next call; an API that keeps it open loses it."""
    import httpx2

    from tasks.deadline import deadline

    with deadline(DRAIN_SECONDS), suppress(httpx2.HTTPError):
        for _ in chunks:
            pass


def _raise_error(response: Any, event: dict[str, Any]) -> NoReturn:
    """Raise what the SDK raises for an error within a stream."""
    import anthropic

    raise anthropic.APIStatusError(str(event), response=response, body=event)
