"""Server-sent events from real web servers: a silent stream says that it lives, and a reader that left is noticed."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import uvicorn
from celery.states import REVOKED
from kit.client_rig import IN_TIME_S, fresh, params, rig, text_of
from kit.waiting import in_time, wait_until
from waitress.server import create_server

from celery_app.client.event_stream import EventStream
from celery_app.connections.redis_client import redis_client
from demo.ports import free_port

#: Celery 5.7 stores a result by a command that redis-py 8 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

#: Seconds of silence after which a gone reader has to be noticed here.
HEARTBEAT = 1.0

#: Seconds by which anything may come late on a busy machine.
LATE = 3.0

#: Seconds for which the API is silent: much longer than any test may take to notice.
SILENCE = 25.0


@pytest.fixture(scope="module")
def shared(valkey, tmp_path_factory):
    """One worker for all tests."""
    with rig(valkey, 10, tmp_path_factory.mktemp("worker")) as up:
        yield up


@pytest.fixture
def up(shared):
    """The same, fresh for each test."""
    return fresh(shared)


@contextmanager
def served_by_waitress(body: Callable[[], Iterable[str]]) -> Iterator[int]:
    """Serve a WSGI application whose answers are made by `body`; gives the port."""

    def site(_: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        return Encoded(body())

    server: Any = create_server(site, host="127.0.0.1", port=0, threads=4)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server.effective_port
    finally:
        server.close()
        thread.join(IN_TIME_S)


class Encoded:
    """What Django and Flask put around a generator of texts: it is closed with the response."""

    def __init__(self, texts: Any) -> None:
        self._texts = texts

    def __iter__(self) -> Iterator[bytes]:
        """Encode each text."""
        return (text.encode() for text in self._texts)

    def close(self) -> None:
        """Close the generator."""
        self._texts.close()


@contextmanager
def served_by_uvicorn(body: Callable[[], Any]) -> Iterator[int]:
    """Serve an ASGI application, which ends a request when its reader has left, as Django's and Starlette's do."""

    async def site(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        writing = asyncio.ensure_future(write(send))
        await receive()
        while not writing.done() and (await receive())["type"] != "http.disconnect":
            pass
        writing.cancel()
        with suppress(asyncio.CancelledError):
            await writing

    async def write(send: Any) -> None:
        async for text in body():
            await send({"type": "http.response.body", "body": text.encode(), "more_body": True})

    port = free_port()
    server = uvicorn.Server(uvicorn.Config(site, port=port, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started, "uvicorn")
        yield port
    finally:
        server.should_exit = True
        thread.join(IN_TIME_S)


def connected(port: int) -> socket.socket:
    """Send a request as a browser does."""
    reader = socket.create_connection(("127.0.0.1", port), IN_TIME_S)
    reader.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return reader


def read_until(reader: socket.socket, words: bytes, times: int = 1) -> bytes:
    """Read until something was said so often."""
    read = b""
    while read.count(words) < times:
        piece = reader.recv(65_536)
        assert piece, f"the connection was closed after {read!r}"
        read += piece
    return read


def test_a_silent_stream_sends_comments(up):
    """Two within its heartbeat, so that a proxy does not hang up; nothing of it is an event."""
    up.api.control(latency=SILENCE)
    made: list[EventStream] = []

    def body() -> Iterator[str]:
        made.append(up.client.stream(**params(), cancel_on_close=True))
        return made[0].sse(HEARTBEAT)

    with served_by_waitress(body) as port, connected(port) as reader:
        begun = time.monotonic()
        read = read_until(reader, b": keep-alive\n\n", times=4)
        assert time.monotonic() - begun < 2 * HEARTBEAT + in_time(LATE)
        assert b"data:" not in read
        reader.close()
        wait_until(lambda: up.app.AsyncResult(made[0].task_id).state == REVOKED, "the job to be cancelled")


def test_a_reader_that_left_is_noticed_within_the_heartbeat(up):
    """Its stream is closed, and its job cancelled, while the API is silent."""
    up.api.control(latency=SILENCE)
    made: list[EventStream] = []

    def body() -> Iterator[str]:
        made.append(up.client.stream(**params(), cancel_on_close=True))
        return made[0].sse(HEARTBEAT)

    with served_by_waitress(body) as port:
        reader = connected(port)
        read_until(reader, b": keep-alive")
        wait_until(lambda: redis_client(up.app).zcard("lanes:leases"), "the call")
        reader.close()
        left = time.monotonic()
        wait_until(lambda: up.app.AsyncResult(made[0].task_id).state == REVOKED, "the job to be cancelled")
        assert time.monotonic() - left < HEARTBEAT + in_time(LATE)
        wait_until(lambda: [call for call in up.api.calls() if call["closed_by_client"]], "the call to be closed")


def test_a_reader_that_left_an_asgi_server_is_noticed(up):
    """The server cancels its request."""
    up.api.control(latency=SILENCE)
    made: list[Any] = []

    def body() -> Any:
        made.append(up.client.astream(**params(), cancel_on_close=True))
        return made[0].sse(HEARTBEAT)

    with served_by_uvicorn(body) as port:
        reader = connected(port)
        assert b"data:" not in read_until(reader, b": keep-alive", times=2)
        reader.close()
        left = time.monotonic()
        wait_until(lambda: up.app.AsyncResult(made[0].task_id).state == REVOKED, "the job to be cancelled")
        assert time.monotonic() - left < HEARTBEAT + in_time(LATE)


def parsed(texts: Iterable[str]) -> list[dict[str, str]]:
    """Return the fields of each event, as a browser reads them."""
    blocks = [block for block in "".join(texts).split("\n\n") if block and not block.startswith(":")]
    return [dict(line.split(": ", 1) for line in block.split("\n")) for block in blocks]


def test_events_have_id_and_data(up):
    """A browser's ``onmessage`` gets them all, and comes back behind the last one with its id."""
    stream = up.client.stream(**params("count to three"))
    events = parsed(stream.sse())

    assert all(event.keys() == {"id", "data"} for event in events)
    assert text_of(json.loads(event["data"]) for event in events)
    rest = parsed(up.client.stream_from(stream.task_id, events[2]["id"]).sse())
    assert rest == events[3:]


def test_events_may_be_named(up):
    """As the API's own stream has them, for readers that are no browser; also from a coroutine."""

    async def read() -> list[str]:
        return [text async for text in up.client.astream(**params()).sse(named=True)]

    for texts in (list(up.client.stream(**params()).sse(named=True)), asyncio.run(read())):
        events = parsed(texts)
        assert [event["event"] for event in events] == [json.loads(event["data"])["type"] for event in events]
        assert events[-1]["event"] == "message_stop"


def test_an_error_is_the_last_event(up):
    """Of a job that fails, and of a stream that is gone; the id before it stays the reader's."""
    failed = parsed(up.client.stream(**params(fault="400")).sse())
    gone = up.client.submit("critical", **params())
    gone.get(timeout=IN_TIME_S)
    (lost,) = parsed(up.client.stream_from(gone.id).sse())

    assert json.loads(failed[-1]["data"])["error"]["type"] == "invalid_request_error"
    assert json.loads(lost["data"])["error"]["type"] == "StreamExpired"
    assert "id" not in lost


def test_a_reader_hears_nothing_of_where_the_broker_is(dead_port):
    """Nobody listens there; the error says to try again."""
    from kit.client_rig import web_app

    app = web_app(f"redis://127.0.0.1:{dead_port}/0")
    for texts in (EventStream(app, "some-id", cancel_on_close=True).sse(),):
        (error,) = parsed(texts)
        assert json.loads(error["data"])["error"]["type"] == "BrokerUnreachable"
        assert str(dead_port) not in error["data"]
    app.close()


@pytest.mark.parametrize("heartbeat", [0, -1.0, float("nan")])
def test_a_heartbeat_has_to_be_above_zero(up, heartbeat):
    """It would write comments without end."""
    with pytest.raises(ValueError, match="heartbeat"):
        next(EventStream(up.app, "some-id").sse(heartbeat))
