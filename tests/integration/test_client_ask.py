"""Submit and ask, from threads and from coroutines."""

import asyncio
import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from anthropic.types import Message
from celery import Celery
from kit.client_rig import IN_TIME_S, fresh, params, rig, text_of, web_app
from kit.waiting import in_time, wait_until

from celery_app import create_app
from celery_app.client import Client
from celery_app.connections.redis_client import redis_client
from celery_app.errors import ApiError, BrokerUnreachable, Cancelled, DeadlineExceeded, InvalidRequest, UnknownLane
from celery_app.keys import DONE_KEPT
from celery_app.lanes import LANES
from celery_app.settings import Settings
from tests.conftest import close

#: Celery 5.7 stores a result by a command that redis-py 8 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")


@pytest.fixture(scope="module")
def shared(valkey, tmp_path_factory):
    """One worker for all tests."""
    with rig(valkey, 9, tmp_path_factory.mktemp("worker"), slots=40) as up:
        yield up


@pytest.fixture
def up(shared):
    """The same, fresh for each test."""
    return fresh(shared)


@contextmanager
def app_with(broker_url: str, **changes: Any) -> Iterator[Celery]:
    """A web app without any worker, all of whose lanes are changed in the same way."""
    lanes = tuple(dataclasses.replace(lane, **changes) for lane in LANES)
    app = create_app(Settings(broker_url=broker_url, result_backend=broker_url, lanes=lanes))
    yield app
    close(app)


@pytest.fixture
def alone(broker_url):
    """A web app without any worker."""
    app = web_app(broker_url)
    yield app
    close(app)


def test_ask_returns_the_sdks_own_message(up):
    """What a caller of the SDK would have got."""
    message = up.client.ask(**params("What is the capital?"))

    assert isinstance(message, Message)
    assert message.content[0].type == "text"
    assert "What is the capital?" in message.content[0].text
    assert message.usage.output_tokens == 16


def test_submit_returns_a_result_to_wait_for(up):
    """In a lane of the caller's choice, `normal` by default."""
    assert up.client.submit(**params()).get(timeout=IN_TIME_S)["type"] == "message"
    assert up.client.submit(lane="batch", **params()).get(timeout=IN_TIME_S)["type"] == "message"


def test_a_failure_is_raised_as_what_it_is(up):
    """With the API's own words."""
    with pytest.raises(ApiError, match="Simulated 400"):
        up.client.ask(**params(fault="400"))
    with pytest.raises(ApiError, match="Simulated 400"):
        asyncio.run(up.client.aask(**params(fault="400")))


def test_many_threads_ask_at_once_and_each_gets_its_own_answer(up):
    """No error, no mix-up."""

    def asked(number: int) -> bool:
        (block,) = up.client.ask(**params(f"question {number}.")).content
        return block.type == "text" and f"question {number}." in block.text

    with ThreadPoolExecutor(32) as pool:
        assert all(pool.map(asked, range(320)))


def test_many_coroutines_ask_at_once_and_each_gets_its_own_answer(up):
    """On one event loop, which is never blocked for long."""

    async def all_of_them() -> list[str]:
        messages = await asyncio.gather(*(up.client.aask(**params(f"question {n}.")) for n in range(50)))
        return [message.content[0].text for message in messages]

    texts = asyncio.run(all_of_them())
    assert all(f"question {number}." in text for number, text in enumerate(texts))


def test_coroutines_read_streams(up):
    """With the same events, ids and message as a thread would get; the id is known before the first event."""
    up.api.control(tokens_per_second=50)

    async def read() -> None:
        stream = up.client.astream(**params("tell me"))
        assert stream.task_id
        events = [await anext(stream) for _ in range(8)]
        await stream.aclose()
        rest = up.client.astream_from(stream.task_id, stream.last_event_id)
        events += [event async for event in rest]
        assert rest.message is not None
        assert text_of(events) == rest.message["content"][0]["text"]

    asyncio.run(read())


def test_a_coroutine_cancels(up):
    """By the function, by closing a stream that was opened so, and by being cancelled while it asks."""
    up.api.control(latency=20.0)

    async def cancel() -> str:
        stream = await up.client.astream(**params())
        assert await up.client.acancel(stream.task_id)
        assert [event["type"] async for event in stream] == ["error"]
        async with up.client.astream(cancel_on_close=True, **params()) as closed:
            pass
        asking = asyncio.create_task(up.client.aask(**params()))
        await asyncio.to_thread(wait_until, lambda: up.api.summary()["in_flight"], "the call is at the API")
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        return closed.task_id

    result = up.app.AsyncResult(asyncio.run(cancel()))
    with pytest.raises(Cancelled):
        result.get(timeout=IN_TIME_S)
    wait_until(lambda: up.api.summary()["in_flight"] == 0, "no call goes on")


def test_submitting_leaves_no_subscription_behind(up):
    """A web process that never fetches its results must not collect them either."""
    client = redis_client(up.app)
    before = client.info("clients")["pubsub_clients"]
    for _ in range(5):
        up.client.submit(**params())

    assert client.info("clients")["pubsub_clients"] == before


def test_an_outcome_is_not_kept_for_long(up):
    """What `ask` waits at is gone when it is read, or soon after."""
    redis = redis_client(up.app)
    before = redis.keys("lanes:done:*")
    up.client.ask(**params())

    assert redis.keys("lanes:done:*") == before
    assert all(0 < redis.ttl(key) <= DONE_KEPT for key in before)


def test_ask_waits_for_its_deadline_and_no_longer(broker_url):
    """Without any worker, too; and the job is not done for nobody later on."""
    with app_with(broker_url, deadline=1.2) as app:
        client = Client(app)
        for asked in (lambda: client.ask(**params()), lambda: asyncio.run(client.aask(**params()))):
            begun = time.monotonic()
            with pytest.raises(DeadlineExceeded):
                asked()
            assert 1.1 < time.monotonic() - begun < in_time(2.5)

        assert len(redis_client(app).keys("lanes:cancel:*")) == 2


def test_a_stream_that_nobody_works_on_is_given_up(broker_url):
    """Soon after its deadline, which nobody else could tell it of."""
    with app_with(broker_url, deadline=0.2) as app:
        with pytest.raises(DeadlineExceeded):
            next(Client(app).stream(**params()))
        assert len(redis_client(app).keys("lanes:cancel:*")) == 1


@pytest.mark.parametrize("call", ["submit", "ask", "stream"])
def test_bad_input_is_refused_before_anything_is_queued(alone, call):
    """A lane that does not exist, and a request that is none."""
    method = getattr(Client(alone), call)
    with pytest.raises(UnknownLane, match="critical"):
        method(lane="critcal", **params())
    with pytest.raises(InvalidRequest, match="max_tokens"):
        method(**params(max_tokens="many"))
    assert redis_client(alone).keys("*") == []


@pytest.mark.parametrize("call", ["submit", "ask", "stream", "submit_many", "cancel", "aask"])
def test_a_dead_broker_is_said_to_be_dead(call):
    """Soon, and not after Celery's endless retries."""
    app = web_app("redis://127.0.0.1:1/0")
    client = Client(app)
    calls: dict[str, Any] = {
        "submit_many": lambda: client.submit_many([params()]),
        "cancel": lambda: client.cancel("some-job"),
        "aask": lambda: asyncio.run(client.aask(**params())),
    }
    begun = time.monotonic()
    with pytest.raises(BrokerUnreachable, match=r"127\.0\.0\.1:1"):
        calls.get(call, lambda: getattr(client, call)(**params()))()

    assert time.monotonic() - begun < in_time(3.0)
    close(app)


def test_the_names_work_on_the_processs_own_application(up):
    """A project calls `celery_app.ask`, and its own application is used."""
    code = """
import celery_app
print(celery_app.ask(model="m", max_tokens=9, messages=[{"role": "user", "content": "hello"}]).content[0].text)
stream = celery_app.stream(model="m", max_tokens=9, messages=[{"role": "user", "content": "x"}])
print([event["type"] for event in stream])
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        check=True,
        timeout=60,
        capture_output=True,
        text=True,
        env={**os.environ, **up.env},
    )
    assert "You said: hello" in done.stdout
    assert "message_stop" in done.stdout
