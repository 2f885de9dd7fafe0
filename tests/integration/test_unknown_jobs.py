"""A reader of a job that nobody knows hears so within seconds; one whose job only waits goes on waiting."""

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from kit.client_rig import params, web_app
from kit.waiting import in_time

from celery_app import create_app, stream_from
from celery_app.client import Client, doubt
from celery_app.client.doubt import UNKNOWN_FOR
from celery_app.connections.redis_client import redis_client
from celery_app.errors import DeadlineExceeded, LaneFull, UnknownJob
from celery_app.keys import STREAM_KEPT_RUNNING
from tasks import create_message, stream_message
from tests.conftest import close

#: Celery 5.7 stores a result by a command that redis-py 8 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

#: Seconds by which anything may come late on a busy machine.
LATE = 5.0

#: Seconds from now at which jobs with a countdown are meant to start: after the test.
LATER = 600


@pytest.fixture
def client(valkey):
    """A web app's side, on an empty broker that no worker serves."""
    with valkey.client(4) as redis:
        redis.flushdb()
    app = web_app(valkey.url(4))
    yield Client(app)
    close(app)


def last_of(texts: list[str]) -> dict[str, Any]:
    """Return the last event that a browser gets."""
    event: dict[str, Any] = json.loads(texts[-1].partition("data: ")[2])
    return event


async def aread(events: Any) -> list[Any]:
    """Read all that a coroutine gets."""
    return [event async for event in events]


def test_a_made_up_id_ends_with_an_error_within_seconds(client):
    """However it is read: it would hold a thread of the web server for as long as its reader likes."""
    begun = time.monotonic()
    with ThreadPoolExecutor() as pool:
        plain = pool.submit(lambda: list(client.stream_from("nonsense")))
        resumed = pool.submit(lambda: list(client.stream_from("nonsense", "1-0-3")))
        sent = pool.submit(lambda: list(client.stream_from("nonsense").sse()))
        by_coroutine = pool.submit(lambda: asyncio.run(aread(client.astream_from("nonsense"))))
        sent_by_coroutine = pool.submit(lambda: asyncio.run(aread(client.astream_from("nonsense").sse())))
        for reading in (plain, resumed, by_coroutine):
            with pytest.raises(UnknownJob, match="'nonsense'"):
                reading.result()
        for texts in (sent.result(), sent_by_coroutine.result()):
            assert last_of(texts)["error"]["type"] == "UnknownJob"

    assert UNKNOWN_FOR <= time.monotonic() - begun < UNKNOWN_FOR + in_time(LATE)
    assert client.app.AsyncResult("nonsense").state == "PENDING"  # looking at it has left no trace
    assert not redis_client(client.app).keys("*nonsense*")


def by_stream(client: Client) -> str:
    """Submit as a web app does."""
    return client.stream("normal", **params()).task_id


def by_apply_async(client: Client) -> str:
    """Submit in Celery's own way."""
    task = client.app.tasks[stream_message.name]
    return str(task.apply_async(kwargs=params(), queue="batch").id)


def by_countdown(client: Client) -> str:
    """Submit for later."""
    task = client.app.tasks[stream_message.name]
    return str(task.apply_async(kwargs=params(), queue="batch", countdown=LATER).id)


def by_name(client: Client) -> str:
    """Submit as a service does that has no tasks."""
    return str(client.app.send_task(stream_message.name, kwargs=params(), queue="normal").id)


@pytest.mark.parametrize("submitted", [by_stream, by_apply_async, by_countdown, by_name])
def test_a_queued_job_is_waited_for(client, submitted, monkeypatch):
    """Its stream is there from its submission on, for longer than a running one's: it may be far back in its lane."""
    monkeypatch.setattr(doubt, "UNKNOWN_FOR", 0.0)
    task_id = submitted(client)
    texts = client.stream_from(task_id).sse(heartbeat=1.0)

    assert [next(texts) for _ in range(3)] == [": keep-alive\n\n"] * 3
    texts.close()
    assert redis_client(client.app).ttl(f"lanes:stream:{task_id}") > STREAM_KEPT_RUNNING


def test_a_job_that_is_no_stream_is_unknown(client, monkeypatch):
    """There will be no event, ever."""
    monkeypatch.setattr(doubt, "UNKNOWN_FOR", 0.0)
    task_id = client.app.tasks[create_message.name].apply_async(kwargs=params(), queue="normal").id

    with pytest.raises(UnknownJob):
        next(client.stream_from(task_id))


def test_an_id_may_be_read_before_its_job_is_submitted(client):
    """A page may be given the id first."""
    with ThreadPoolExecutor() as pool:
        texts = client.stream_from("early").sse(heartbeat=1.0)
        first = pool.submit(next, texts)
        client.app.tasks[stream_message.name].apply_async(kwargs=params(), queue="normal", task_id="early")
        assert first.result().startswith(":")
        until = time.monotonic() + UNKNOWN_FOR + 1.0
        while time.monotonic() < until:
            assert next(texts).startswith(":")
        texts.close()


def test_a_stream_that_has_begun_is_left_as_it_is(client):
    """A job whose id is submitted twice does not empty the stream that is being read."""
    redis = redis_client(client.app)
    redis.xadd("lanes:stream:twice", {"a": "one", "n": 0, "e": '{"type": "message_start"}'})
    client.app.tasks[stream_message.name].apply_async(kwargs=params(), queue="normal", task_id="twice")

    assert redis.xlen("lanes:stream:twice") == 1


def test_a_refused_job_leaves_nothing(valkey, client, monkeypatch):
    """A crowd before a full lane would fill Redis otherwise."""
    monkeypatch.setenv("LANES_NORMAL_CAPACITY", "1")
    monkeypatch.setenv("LANES_NORMAL_SUBMIT_WAIT", "0.1")
    monkeypatch.setenv("CELERY_BROKER_URL", valkey.url(4))
    app = create_app()
    Client(app).stream("normal", **params())
    with pytest.raises(LaneFull):
        Client(app).stream("normal", **params())
    assert len(redis_client(app).keys("lanes:stream:*")) == 1
    close(app)


def test_a_reader_that_gives_up_leaves_the_job_alone(client, monkeypatch):
    """It may be far back in `batch`; whoever looks at it must not end it."""
    monkeypatch.setattr("celery_app.client.client.SILENCE", 0.0)
    task_id = by_apply_async(client)

    with pytest.raises(DeadlineExceeded, match="not disturbed"):
        next(client.stream_from(task_id))
    with pytest.raises(DeadlineExceeded, match="not disturbed"):
        asyncio.run(aread(client.astream_from(task_id)))
    assert client.app.AsyncResult(task_id).state == "PENDING"
    assert not redis_client(client.app).keys("lanes:cancel:*")


def test_silence_counts_from_the_last_event(client, monkeypatch):
    """An answer may take longer than its readers' patience."""
    monkeypatch.setattr("celery_app.client.client.SILENCE", 0.5)
    task_id, redis = by_apply_async(client), redis_client(client.app)

    def write() -> None:
        for number in range(4):
            redis.xadd(f"lanes:stream:{task_id}", {"a": "one", "n": number, "e": '{"type": "ping"}'})
            time.sleep(1.2)
        redis.xadd(f"lanes:stream:{task_id}", {"a": "one", "n": 4, "e": '{"type": "message_stop"}', "m": "{}"})

    with ThreadPoolExecutor() as pool:
        plain = pool.submit(lambda: list(client.stream_from(task_id)))
        by_coroutine = pool.submit(lambda: asyncio.run(aread(client.astream_from(task_id))))
        write()
        assert len(plain.result()) == len(by_coroutine.result()) == 5


def test_a_made_up_id_in_a_test_of_ones_own(lanes):
    """With the fixture `lanes` it is an error at once, and a held job is not taken for one."""
    with pytest.raises(UnknownJob):
        next(stream_from("nonsense"))
    lanes.hold()
    held = stream_message.apply_async(kwargs=params(), queue="normal")
    with pytest.raises(DeadlineExceeded):
        next(stream_from(held.id))
