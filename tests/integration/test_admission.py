"""A job that the budget has no room for: where it waits, and what may happen to it meanwhile."""

import json
import time
from typing import Any

import pytest
from kit.client_rig import IN_TIME_S, Rig, fresh, params, rig, web_app
from kit.records import queued
from kit.waiting import wait_until
from kit.worker import worker

from celery_app import create_app
from celery_app.client import Client
from celery_app.connections.redis_client import redis_client
from celery_app.errors import ApiError, Cancelled, DeadlineExceeded
from celery_app.lanes import CRITICAL
from demo.simulator import ApiLimits, running
from tasks import create_message
from tasks.loop import close_loop
from tests.conftest import close

#: Of model ``narrow`` one call at a time, of ``slow`` two requests a second, of any other as many as you like.
LIMITS = json.dumps({"narrow": {"concurrency": 1}, "slow": {"rpm": 120}})

#: Seconds of a call that somebody waits behind.
LONG_CALL = 3.0

#: Celery 5.7 stores a result by a command that redis-py 8 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")


@pytest.fixture(scope="module")
def shared(valkey, tmp_path_factory):
    """One worker with two slots for all tests."""
    with rig(valkey, 9, tmp_path_factory.mktemp("worker"), slots=2, EZAI_LIMITS=LIMITS) as up:
        yield up


@pytest.fixture
def up(shared):
    """The same, fresh for each test."""
    return fresh(shared)


def call(model: str) -> dict[str, Any]:
    """Return the parameters of a call of a model."""
    return {**params(), "model": model}


def occupy(up: Rig, seconds: float = LONG_CALL) -> Any:
    """Have the one call of ``narrow`` under way, and return its job."""
    up.api.control(latency=seconds)
    result = up.client.submit("normal", **call("narrow"))
    wait_until(lambda: up.api.summary()["in_flight"] == 1, "the call is at the API")
    up.api.control(latency=0.0)
    return result


def waits_in(up: Rig, lane: str) -> set[str]:
    """Return the jobs that wait in a lane."""
    return set(queued(redis_client(up.app), lane))


def test_a_job_without_room_takes_no_slot_from_another_model(up):
    """With two slots, and three jobs waiting for the one call of their model."""
    occupied = occupy(up)
    waiting = [up.client.submit("normal", **call("narrow")) for _ in range(3)]
    for _ in range(3):
        up.client.submit("batch", **call("free")).get(timeout=IN_TIME_S)
    assert not occupied.ready()
    assert waits_in(up, "normal") == {result.id for result in waiting}

    for result in waiting:
        assert result.get(timeout=IN_TIME_S)["type"] == "message"


def test_a_job_that_waits_for_the_budget_can_be_cancelled(up):
    """It ends at once, and is not called when its turn would have come."""
    occupied = occupy(up)
    waiting = up.client.submit("normal", **call("narrow"))
    up.client.submit("batch", **call("free")).get(timeout=IN_TIME_S)
    assert waits_in(up, "normal") == {waiting.id}
    assert up.client.cancel(waiting)

    with pytest.raises(Cancelled):
        waiting.get(timeout=IN_TIME_S)
    assert not occupied.ready()
    assert occupied.get(timeout=IN_TIME_S)["type"] == "message"
    assert up.client.submit("normal", **call("narrow")).get(timeout=IN_TIME_S)["type"] == "message"
    assert up.api.summary()["total"] == 3


def test_waiting_for_the_budget_costs_no_attempt(up):
    """Nor anything else of the job: all three attempts of its lane are left when it is called."""
    occupied = occupy(up)
    waiting = up.client.submit("critical", **{**params(fault="500"), "model": "narrow"})
    occupied.get(timeout=IN_TIME_S)
    with pytest.raises(ApiError, match="500"):
        waiting.get(timeout=IN_TIME_S)
    assert [each["status"] for each in up.api.calls()] == [200] + [500] * CRITICAL.attempts


def test_a_lane_alone_reaches_the_full_rate(up):
    """Jobs that wait in their lane lose no time there, and keep their order."""
    jobs = [up.client.submit("batch", **{**call("slow"), "metadata": {"user_id": str(n)}}) for n in range(10)]
    for job in jobs:
        job.get(timeout=IN_TIME_S)
    calls = up.api.calls()
    took = calls[-1]["arrived"] - calls[0]["arrived"]

    assert took < 1.5 * 9 / (120 / 60 * 0.98)
    early = [int(each["user_id"]) for each in calls]
    assert sum(abs(place - n) for place, n in enumerate(early)) <= 2 * len(jobs)


def test_a_certain_wait_beyond_the_deadline_ends_the_job_at_once(up):
    """The API has said when it will answer again, and that is too late: why let somebody wait."""
    up.api.control(latency=0.0)
    up.client.submit("normal", **call("free")).get(timeout=IN_TIME_S)
    late = time.time() + 2
    budget = redis_client(up.app).keys("lanes:budget:*}")[0]
    redis_client(up.app).hset(budget, "closed_until", int((late + 60) * 1e6))

    begun = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        up.client.ask(**call("free"))
    assert time.monotonic() - begun < 10


@pytest.mark.slow
def test_a_worker_that_stops_keeps_no_waiting_job(valkey, tmp_path):
    """It finishes its call and begins no other; what waited is in the broker for the next worker."""
    with rig(valkey, 10, tmp_path, slots=2, EZAI_LIMITS=LIMITS) as up:
        occupied = occupy(up)
        waiting = up.client.submit("normal", **call("narrow"))
        up.client.submit("batch", **call("free")).get(timeout=IN_TIME_S)
        assert up.worker.stop() == 0
        assert occupied.get(timeout=IN_TIME_S)["type"] == "message"
        assert (waits_in(up, "normal"), up.api.summary()["total"]) == ({waiting.id}, 2)

        with worker(tmp_path, "-c", "2", **up.env):
            assert waiting.get(timeout=IN_TIME_S)["type"] == "message"


def test_a_call_without_a_worker_waits_for_the_budget_where_it_is(up, monkeypatch):
    """Called eagerly, as tests do, a task has no lane to go back to, so it waits its turn."""
    for name, value in {**up.env, "EZAI_LIMITS": json.dumps({"slow": {"rpm": 120}})}.items():
        monkeypatch.setenv(name, value)
    app = create_app()
    task = app.tasks[create_message.name]
    begun = time.monotonic()
    results = [task.apply(kwargs=call("slow")) for _ in range(5)]

    assert [result.get()["type"] for result in results] == ["message"] * 5
    assert time.monotonic() - begun > 1.0
    close_loop()
    close(app)


#: A module that puts its process's clock forward.
SKEWED = "import time\n_now = time.time\ntime.time = lambda: _now() + 10\n"


@pytest.mark.slow
def test_workers_whose_clocks_are_ten_seconds_apart_share_one_limit(valkey, tmp_path):
    """Only Redis' clock counts: together they neither exceed the limit nor leave much of it unused."""
    broker, jobs, per_second = valkey.url(12), 30, 3.0
    with valkey.client(12) as redis:
        redis.flushdb()
    (tmp_path / "skewed.py").write_text(SKEWED)
    app = web_app(broker)
    with running(limits=ApiLimits(rpm=round(per_second * 60))) as api:
        env = {"CELERY_BROKER_URL": broker, "EZAI_API_KEY": "sk-test", "EZAI_BASE_URL": api.url, "EZAI_RPM": "180"}
        early = worker(tmp_path, "-c", "2", "-n", "early@%h", "-I", "skewed", **env)
        late = worker(tmp_path, "-c", "2", "-n", "late@%h", **env)
        with early as one, late as other:
            results = [Client(app).submit("batch", **params()) for _ in range(jobs)]
            for result in results:
                assert result.get(timeout=IN_TIME_S)["type"] == "message"
            calls = api.calls()
            assert all("succeeded" in each.output() for each in (one, other))
    close(app)

    assert [call["status"] for call in calls] == [200] * jobs
    took = calls[-1]["arrived"] - calls[0]["arrived"]
    assert 0.9 < took / ((jobs - 1 - per_second) / (per_second * 0.98)) < 1.5
