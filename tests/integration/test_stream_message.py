"""An answer reaches its reader while it is produced, whatever breaks on the way."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any

import pytest
from kit.client_rig import IN_TIME_S, fresh, params, rig, text_of, web_app
from kit.waiting import wait_until
from kit.worker import worker

from celery_app.client import Client
from celery_app.connections.redis_client import redis_client
from celery_app.errors import ApiError, InvalidRequest, StreamExpired
from celery_app.keys import STREAM_KEPT, STREAM_KEPT_RUNNING
from celery_app.routing import DEADLINE_AT
from demo.simulator import Behaviour
from tasks import stream_message
from tests.conftest import close

TOOL = {
    "name": "get_weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
}
PIXEL = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
PDF = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0xLjQ="}

#: What a caller may send, and what comes back in kind.
CALLS: dict[str, dict[str, Any]] = {
    "plain": params(),
    "system prompt": params(system=[{"type": "text", "text": "Be brief."}]),
    "extended thinking": params(max_tokens=4_000, thinking={"type": "enabled", "budget_tokens": 1_024}),
    "tools": params(tools=[TOOL], tool_choice={"type": "tool", "name": "get_weather"}),
    "image": params([{"type": "image", "source": PIXEL}, {"type": "text", "text": "what is it?"}]),
    "document": params([{"type": "document", "source": PDF}, {"type": "text", "text": "sum it up"}]),
    "unicode": params("Grüße 🐘 \u2028 \x7f"),
    "more than the SDK knows": params(temperature=0.3),
}


@pytest.fixture(scope="module")
def shared(valkey, tmp_path_factory):
    """One worker for all tests."""
    with rig(valkey, 6, tmp_path_factory.mktemp("worker"), slots=110) as up:
        yield up


@pytest.fixture
def up(shared):
    """The same, fresh for each test."""
    return fresh(shared)


def without_ids(message: dict[str, Any]) -> Any:
    """Return a message without what differs from call to call."""
    content = [{name: value for name, value in block.items() if name != "id"} for block in message["content"]]
    return {**message, "id": None, "content": content}


@pytest.mark.parametrize("name", CALLS)
def test_a_streamed_message_is_the_same_as_a_whole_one(up, name):
    """Nothing that the API can say is lost, changed or invented on its way through the stream."""
    stream = up.client.stream(**CALLS[name])
    kinds = [event["type"] for event in stream]

    whole = up.client.submit("critical", **CALLS[name]).get(timeout=IN_TIME_S)
    assert stream.message is not None
    assert without_ids(stream.message) == without_ids(whole)
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
    assert up.app.AsyncResult(stream.task_id).get(timeout=IN_TIME_S) == stream.message


def test_thinking_and_tools_come_through_as_what_they_are(up):
    """The signature of a thought and the input of a tool are what the next request has to repeat."""
    for event in (thinking := up.client.stream(**CALLS["extended thinking"])):
        assert event["type"] != "error"
    for event in (tools := up.client.stream(**CALLS["tools"])):
        assert event["type"] != "error"

    assert thinking.message is not None
    assert tools.message is not None
    assert thinking.message["content"][0]["signature"]
    assert tools.message["content"][-1]["input"]["days"] == 1
    assert tools.message["stop_reason"] == "tool_use"


def test_tokens_arrive_while_others_are_still_to_come(up):
    """A stream that is delivered at its end is none."""
    up.api.control(tokens_per_second=20, output_tokens=20)
    stream = up.client.stream(**params())
    at = [time.monotonic() for event in stream if event["type"] == "content_block_delta"]

    assert at[-1] - at[0] > 0.7
    assert max(after - before for before, after in pairwise(at)) < 0.4


@pytest.mark.parametrize("fault", ["truncated", "drop_mid_stream", "stream_overloaded", "broken_json"])
def test_a_broken_stream_says_restart_before_it_begins_anew(up, fault):
    """Nobody reads the beginning twice; the last word of a job that never succeeds is its error."""
    events = list(up.client.stream(**params(fault=fault)))

    kinds = [event["type"] for event in events]
    assert kinds.count("restart") == 2
    assert [kinds[at + 1] for at, kind in enumerate(kinds) if kind == "restart"] == ["message_start"] * 2
    assert kinds[-1] == "error"
    assert kinds.count("error") == 1


def test_a_stream_that_breaks_once_ends_well(up):
    """The attempt after the broken one is read as a whole."""
    up.api.control(tokens_per_second=20, drop_mid_stream_rate=1.0)
    stream = up.client.stream(**params("tell me"))
    events = []
    for event in stream:
        events.append(event)
        if event["type"] == "content_block_delta":
            up.api.control(drop_mid_stream_rate=0.0)

    assert [event["type"] for event in events].count("restart") == 1
    assert stream.message is not None
    assert text_of(events) == stream.message["content"][0]["text"]


def test_a_refusal_is_the_last_event(up):
    """In the form that the API itself gives it."""
    events = list(up.client.stream(**params(fault="400")))

    assert [event["type"] for event in events] == ["error"]
    assert events[0]["error"]["type"] == "invalid_request_error"


def test_a_deadline_that_passes_in_the_queue_ends_the_stream(up):
    """A reader does not wait for a job that will never be called."""
    result = up.app.tasks[stream_message.name].apply_async(
        kwargs=params(), queue="critical", headers={DEADLINE_AT: time.time() - 1}
    )
    events = list(up.client.stream_from(result.id))

    assert [event["error"]["type"] for event in events] == ["DeadlineExceeded"]
    assert up.api.summary()["total"] == 0


def test_a_reader_that_comes_back_gets_the_rest(up):
    """From any event on, also from the middle of an entry and from the last one."""
    stream = up.client.stream(**params())
    events, ids = [], []
    for event in stream:
        events.append(event)
        ids.append(stream.last_event_id)

    assert len(set(ids)) == len(ids)
    for at, event_id in enumerate(ids):
        assert list(up.client.stream_from(stream.task_id, event_id)) == events[at + 1 :]


def test_readers_that_leave_and_resume_miss_nothing(up):
    """A hundred streams, each of whose readers is replaced twice in the middle: nothing doubled, nothing missing."""
    up.api.control(tokens_per_second=20, output_tokens=24)
    streams = [up.client.stream(**params(f"question {number}")) for number in range(100)]
    for number, first in enumerate(streams):
        events = [next(first) for _ in range(4 + number % 7)]
        first.close()
        second = Client(up.app).stream_from(first.task_id, first.last_event_id)
        events += [next(second) for _ in range(number % 5)]
        second.close()
        last = up.client.stream_from(first.task_id, second.last_event_id or first.last_event_id)
        events += list(last)

        assert last.message is not None
        assert f"question {number}" in last.message["content"][0]["text"]
        assert text_of(events) == last.message["content"][0]["text"]


def test_a_stream_is_gone_after_a_while(up):
    """While it runs it is kept for longer, afterwards for as long as somebody may come back."""
    up.api.control(tokens_per_second=20)
    stream = up.client.stream(**params())
    next(stream)
    key, redis = f"lanes:stream:{stream.task_id}", redis_client(up.app)

    assert STREAM_KEPT < redis.ttl(key) <= STREAM_KEPT_RUNNING
    list(stream)
    assert 0 < redis.ttl(key) <= STREAM_KEPT
    redis.delete(key)
    up.app.AsyncResult(stream.task_id).get(timeout=IN_TIME_S)
    with pytest.raises(StreamExpired):
        next(up.client.stream_from(stream.task_id))


@pytest.mark.parametrize("event_id", ["x", "1-2", "1-2-3-4", "-1-2-3", "1-2-\n", "9" * 30 + "-0-0"])
def test_a_last_event_id_that_is_none_is_refused(up, event_id):
    """It comes from a browser, so it may be anything."""
    with pytest.raises(InvalidRequest, match="last_event_id"):
        up.client.stream_from("some-job", event_id)


def test_an_attempt_that_lost_its_job_is_not_read(up):
    """A worker that wakes up after its lease was over goes on writing; its reader follows the other one."""
    redis, key = redis_client(up.app), "lanes:stream:two-writers"

    def write(attempt: str, number: int, *events: str, **end: str) -> None:
        lines = "\n".join(f'{{"type": "{event}"}}' for event in events)
        redis.xadd(key, {"a": attempt, "n": number, "e": lines, **end})

    write("old", 0, "message_start", "one")
    write("new", 0, "restart", "message_start")
    write("old", 2, "two", "message_stop", m='{"by": "old"}')
    write("new", 2, "uno")
    write("new", 2, "uno")
    write("new", 3, "message_stop", m='{"by": "new"}')
    stream = up.client.stream_from("two-writers")
    kinds = [event["type"] for event in stream]

    assert kinds == ["message_start", "one", "restart", "message_start", "uno", "message_stop"]
    assert stream.message == {"by": "new"}


def test_a_stream_is_settled_with_the_budget(up):
    """A call that was never settled would count as in flight."""
    list(up.client.stream(**params()))
    list(up.client.stream(**params(fault="drop_mid_stream")))

    wait_until(lambda: not redis_client(up.app).keys("lanes:budget:*:calls"), "no call in flight")


@contextmanager
def refusing_api() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An API that keeps what it is sent, and refuses it."""
    bodies: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_error(400)

        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", bodies
        server.shutdown()
        thread.join()


def test_a_request_reaches_the_api_as_it_was_made(valkey, tmp_path):
    """Thinking, tools, images, documents: field by field, streamed or not."""
    with valkey.client(11) as redis:
        redis.flushdb()
    app = web_app(valkey.url(11))
    with refusing_api() as (url, bodies):
        env = {"CELERY_BROKER_URL": valkey.url(11), "EZAI_API_KEY": "k", "EZAI_BASE_URL": url}
        with worker(tmp_path, "-c", "1", **env):
            for call in CALLS.values():
                for _ in Client(app).stream(**call):
                    pass
                with pytest.raises(ApiError):
                    Client(app).ask(**call)
    close(app)

    assert bodies == [body for call in CALLS.values() for body in ({**call, "stream": True}, call)]


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_is_followed_by_another(valkey, tmp_path_factory):
    """The readers are told to start over, and have the whole text in the end."""
    slow = Behaviour(tokens_per_second=10, output_tokens=30)
    with rig(valkey, 7, tmp_path_factory.mktemp("first"), slow) as up:
        streams = [up.client.stream("normal", **params(f"question {number}")) for number in range(5)]
        events = [[next(stream) for _ in range(6)] for stream in streams]
        up.worker.process.kill()
        up.worker.process.wait(10)
        with worker(tmp_path_factory.mktemp("second"), "-c", "8", **up.env):
            for stream, seen in zip(streams, events, strict=True):
                seen += list(stream)

        for number, (stream, seen) in enumerate(zip(streams, events, strict=True)):
            assert [event["type"] for event in seen].count("restart") == 1
            assert stream.message is not None
            assert f"question {number}" in stream.message["content"][0]["text"]
            assert text_of(seen) == stream.message["content"][0]["text"]
