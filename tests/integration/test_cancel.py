"""A job that nobody wants any more: it never runs, or its call ends."""

import time
from typing import Any

import pytest
from kit.client_rig import IN_TIME_S, Rig, fresh, params, rig
from kit.waiting import wait_until

from celery_app.connections.redis_client import redis_client
from celery_app.errors import Cancelled

#: Seconds within which the API is let go, with a quarter for a machine that is busy with other tests.
LET_GO = 0.5 + 0.25

#: Celery 5.7 stores a result by a command that redis-py 8 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")


@pytest.fixture(scope="module")
def shared(valkey, tmp_path_factory):
    """One worker with few slots for all tests."""
    with rig(valkey, 8, tmp_path_factory.mktemp("worker"), slots=2) as up:
        yield up


@pytest.fixture
def up(shared):
    """The same, fresh for each test."""
    return fresh(shared)


def closed_by_us(up: Rig) -> list[dict[str, Any]]:
    """Return the calls whose connection was closed before the answer."""
    return [call for call in up.api.calls() if call["closed_by_client"]]


def wait_for_calls(up: Rig, number: int = 1) -> None:
    """Wait until so many calls are at the API."""
    wait_until(lambda: up.api.summary()["in_flight"] >= number, f"{number} calls at the API")


@pytest.mark.parametrize("streaming", [False, True])
def test_a_running_call_is_closed_at_once(up, streaming):
    """The API stops producing, and the slot and the budget are free again."""
    up.api.control(latency=20.0)
    job: Any = up.client.stream(**params()) if streaming else up.client.submit("critical", **params())
    wait_for_calls(up)

    begun = time.time()
    assert up.client.cancel(job)

    wait_until(lambda: closed_by_us(up), "the connection is closed")
    assert closed_by_us(up)[0]["closed_by_client"] - begun < LET_GO
    wait_until(lambda: not redis_client(up.app).keys("lanes:budget:*:calls"), "no call in flight")
    up.api.control(latency=0.0)
    assert up.client.ask(**params("the next one")).type == "message"
    assert up.api.summary()["total"] == 2


def test_a_stream_is_closed_between_two_tokens(up):
    """What has arrived has arrived; the reader is told that no more will."""
    up.api.control(tokens_per_second=5, output_tokens=100)
    stream = up.client.stream(**params())
    events = [next(stream) for _ in range(5)]
    assert up.client.cancel(stream)
    events += list(stream)

    assert events[-1]["type"] == "error"
    assert events[-1]["error"]["type"] == "Cancelled"
    assert len(events) < 20
    wait_until(lambda: closed_by_us(up), "the connection is closed")


def test_a_reader_that_goes_away_may_take_its_job_along(up):
    """A closed tab costs no tokens; without `cancel_on_close` it is only a reader less."""
    up.api.control(tokens_per_second=10, output_tokens=30)
    with up.client.stream(cancel_on_close=True, **params()) as wanted, up.client.stream(**params()) as left:
        next(wanted)
        next(left)

    assert up.app.AsyncResult(left.task_id).get(timeout=IN_TIME_S)["type"] == "message"
    with pytest.raises(Cancelled):
        up.app.AsyncResult(wanted.task_id).get(timeout=IN_TIME_S)
    assert len(closed_by_us(up)) == 1


def test_a_queued_job_never_runs(up):
    """Whoever waits for it knows at once, however far back it is."""
    up.api.control(latency=1.0)
    running = [up.client.submit("critical", **params()) for _ in range(2)]
    wait_for_calls(up, 2)
    queued = up.client.submit("critical", **params("nobody wants this"))
    stream = up.client.stream(**params("nor this"))
    for job in (queued, stream):
        assert up.client.cancel(job)

    with pytest.raises(Cancelled):
        queued.get(timeout=IN_TIME_S)
    assert queued.state == "REVOKED"
    assert [event["error"]["type"] for event in stream] == ["Cancelled"]
    for result in running:
        assert result.get(timeout=IN_TIME_S)["type"] == "message"
    assert up.client.ask(**params("behind them")).type == "message"
    assert up.api.summary()["total"] == 3


def test_a_job_that_waits_for_its_next_attempt_is_not_tried_again(up):
    """The mark outlives the attempt."""
    up.api.control(server_error_rate=1.0)
    result = up.client.submit("batch", **params())
    wait_until(lambda: result.state == "RETRY", "a failed attempt")
    up.client.cancel(result)
    up.api.control(server_error_rate=0.0)

    with pytest.raises(Cancelled):
        result.get(timeout=IN_TIME_S)
    redis = redis_client(up.app)
    wait_until(lambda: not redis.hexists("lanes:jobs", result.id), "the scheduler has forgotten the job")
    assert up.api.summary()["total"] == 1
    assert result.state == "REVOKED"


def test_the_connections_of_other_calls_stay_open(up):
    """A connection serves one call after the other; only its present one may close it."""
    for _ in range(5):
        up.api.control(latency=0.0)
        assert up.client.ask(**params("warm")).type == "message"
        up.api.control(latency=0.6)
        kept, dropped = (up.client.submit("critical", **params(word)) for word in ("keep", "drop"))
        wait_for_calls(up, 2)
        up.client.cancel(dropped)
        assert "keep" in kept.get(timeout=IN_TIME_S)["content"][0]["text"]
    assert len(closed_by_us(up)) == 5


def test_a_cancelled_call_says_nothing_about_the_api(up):
    """The budget must not slow down because we hung up."""
    up.api.control(latency=20.0)
    for _ in range(3):
        result = up.client.submit("critical", **params())
        wait_for_calls(up)
        up.client.cancel(result)
        wait_until(lambda: not up.api.summary()["in_flight"], "the call has ended")
    up.api.control(latency=0.0)

    up.client.ask(**params())
    redis = redis_client(up.app)
    assert not any(redis.hexists(key, "overload_rate") for key in redis.keys("lanes:budget:*}"))
