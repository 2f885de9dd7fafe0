"""Jobs whose prompts begin alike, with a real worker and the simulated API, which keeps what the real one does."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from kit.client_rig import IN_TIME_S, Rig, drop_jobs, fresh, params, rig, wait_until
from kit.worker import worker

from celery_app import LANES, controls
from celery_app.connections.redis_client import redis_client

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Valkey

#: Celery 5.7 stores a result by a command that redis-py 8 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

DB, SLOTS = 14, 6

#: Lanes whose jobs wait for the first one with their prompt's beginning.
CACHED = tuple(replace(lane, prompt_caches=True) for lane in LANES)

#: Tokens of a beginning, of four characters each.
TOKENS = 5_000


@pytest.fixture(scope="module")
def shared(valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One worker for all cases."""
    with rig(valkey, DB, tmp_path_factory.mktemp("worker"), slots=SLOTS, lanes=CACHED, EZAI_CONCURRENCY="50") as up:
        yield up


@pytest.fixture
def up(shared: Rig) -> Rig:
    """The same as if no test had used it."""
    redis = redis_client(shared.app)
    drop_jobs(redis)
    for key in redis.keys("lanes:prefix:*"):
        redis.delete(key)
    return fresh(shared)


def marked(name: str, question: str = "q", fault: str | None = None) -> dict[str, Any]:
    """Return the parameters of a call with a beginning."""
    text = f"{name} ".ljust(4 * TOKENS, "x")
    block = {"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}
    return params(question, fault, system=[block])


def submitted(up: Rig, *requests: dict[str, Any]) -> list[Any]:
    """Submit jobs, which no worker gets before all are there."""
    controls.pause(up.app, "batch", by="test")
    jobs = [up.client.submit("batch", **request) for request in requests]
    controls.resume(up.app, "batch")
    return jobs


def created(up: Rig) -> int:
    """Return how often a beginning was put into the cache, by the answers that have come."""
    return sum(call["input_tokens"] >= TOKENS for call in up.api.calls() if call["status"] == 200)


def test_a_crowd_pays_for_a_beginning_once(up):
    """All but the first read it, and nobody else waits."""
    up.api.control(latency=0.3)
    jobs = submitted(up, *(marked("crowd", f"q{n}") for n in range(3 * SLOTS)))
    usages = [job.get(timeout=IN_TIME_S)["usage"] for job in jobs]
    assert created(up) == 1
    assert sum(usage["cache_read_input_tokens"] >= TOKENS - 10 for usage in usages) == 3 * SLOTS - 1


def test_streams_follow_the_first_byte(up):
    """The first answer goes on for a long time; the others have begun by then."""
    up.api.control(latency=0.2, tokens_per_second=2.0, output_tokens=100)
    stream = up.app.tasks["tasks.stream_message"]
    jobs = [stream.apply_async(kwargs=marked("stream"), queue="batch") for _ in range(3)]
    wait_until(lambda: len(up.api.calls()) == 3, "all have left")
    calls = up.api.calls()
    assert not any(call["ended"] for call in calls)
    assert sorted(call["cache_read_tokens"] > 0 for call in calls) == [False, True, True]
    for job in jobs:
        up.client.cancel(job)


def test_two_beginnings_do_not_wait_for_each_other(up):
    """Each has a first of its own, and both go at once; so does a job without one."""
    up.api.control(latency=1.0)
    jobs = submitted(up, *(marked(name, f"q{n}") for n in range(3) for name in ("one", "two")), params("plain"))
    wait_until(lambda: len(up.api.calls()) == 3, "the first ones, and the one without")
    for job in jobs:
        job.get(timeout=IN_TIME_S)
    assert created(up) == 2


@pytest.mark.parametrize("fault", ["400", "500"])
def test_the_next_is_first_where_the_first_one_fails(up, fault):
    """Whether it is over with it, or will be tried again."""
    up.api.control(latency=0.2)
    name = f"fails with {fault}"  # the API remembers those of the case before
    first, *others = submitted(up, marked(name, fault=fault), *(marked(name, f"q{n}") for n in range(4)))
    for job in others:
        job.get(timeout=IN_TIME_S)
    assert created(up) == 1
    up.client.cancel(first)


def test_the_next_is_first_where_the_first_one_is_cancelled(up):
    """While its call goes on."""
    up.api.control(latency=0.3)
    first, *others = submitted(up, marked("cancelled", fault="hang"), *(marked("cancelled", f"q{n}") for n in range(4)))
    wait_until(up.api.calls, "the first has left")
    assert up.client.cancel(first)
    for job in others:
        job.get(timeout=IN_TIME_S)
    assert created(up) == 1


@pytest.mark.slow
def test_the_next_is_first_where_the_first_ones_worker_is_killed(valkey, tmp_path):
    """Once its lease is over: its own job stands before the others again, and what it had begun is kept nowhere."""
    with (
        rig(valkey, DB - 1, tmp_path, slots=SLOTS, app="kit.hasty", options=("-n", "one@%h"), lanes=CACHED) as up,
        worker(tmp_path, "-Q", "batch", "-c", str(SLOTS), "-n", "two@%h", app="kit.hasty", **up.env) as other,
    ):
        up.api.control(latency=60.0)
        jobs = submitted(up, *(marked("killed", f"q{n}") for n in range(4)))
        wait_until(up.api.calls, "the first has left")
        up.api.control(latency=0.2)
        wait_until(lambda: any(jobs[0].id in each.output() for each in (up.worker, other)), "its worker has said so")
        (up.worker if jobs[0].id in up.worker.output() else other).kill()
        usages = [job.get(timeout=IN_TIME_S)["usage"] for job in jobs]
        assert sum(usage["cache_creation_input_tokens"] > 0 for usage in usages) == 1
        assert usages[0]["cache_creation_input_tokens"] > 0
