"""Whoever waits in vain learns whether anybody serves the lane."""

import asyncio
import dataclasses
import time
from typing import Any

import pytest
from kit.client_rig import params
from kit.waiting import wait_until
from kit.worker import worker
from pydantic import SecretStr

from celery_app import LANES, create_app
from celery_app.client import Client
from celery_app.connections.redis_client import redis_client
from celery_app.errors import DeadlineExceeded
from celery_app.metrics.stats import get_queue_stats
from celery_app.settings import Settings
from celery_app.worker.presence import why_silent
from tests.conftest import close

#: Celery 5.7 stores a result by a command that redis-py 8 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

DB = 9


@pytest.fixture
def app(valkey):
    """An application on an empty broker whose jobs have half a second."""
    with valkey.client(DB) as redis:
        redis.flushdb()
    broker, keys = valkey.url(DB), {lane.name: SecretStr("unused") for lane in LANES}
    lanes = tuple(dataclasses.replace(lane, deadline=0.5) for lane in LANES)
    app = create_app(Settings(broker_url=broker, result_backend=broker, api_keys=keys, lanes=lanes))
    yield app
    close(app)


def test_ask_says_that_nobody_serves_the_lane(app):
    """Of a stopped worker or a forgotten ``-Q`` a web developer learns from the exception."""
    client = Client(app)
    with pytest.raises(DeadlineExceeded, match=r"before there is an answer: no worker serves critical; it had"):
        client.ask(**params())
    with pytest.raises(DeadlineExceeded, match="no worker serves normal"):
        asyncio.run(client.aask("normal", **params()))


def test_a_stream_says_so_too(app):
    """Both kinds; one that was taken up by its id does not know its lane."""
    client = Client(app)
    with pytest.raises(DeadlineExceeded, match="before the stream has ended: no worker serves critical"):
        list(client.stream(**params()))

    async def read() -> list[Any]:
        return [event async for event in client.astream("batch", **params())]

    with pytest.raises(DeadlineExceeded, match="before the stream has ended: no worker serves batch"):
        asyncio.run(read())
    assert why_silent(app, None) == ""


def test_a_served_lane_tells_how_many_jobs_wait(app, valkey, tmp_path):
    """A worker is there, and the figures say what it is busy with."""
    redis = redis_client(app)
    env = {"CELERY_BROKER_URL": valkey.url(DB), "EZAI_API_KEY": "sk-test"}
    with worker(tmp_path, "-Q", "batch", "-c", "1", **env) as started:
        wait_until(lambda: redis.zcard("lanes:workers:batch"), "its sign of life")
        assert why_silent(app, "batch") == ""
        assert why_silent(app, "critical") == ": no worker serves critical"
        for _ in range(3):
            app.send_task("some.task", queue="critical")
        redis.zadd("lanes:workers:critical", {"another": time.time() * 1000})
        assert why_silent(app, "critical") == " (3 jobs are queued in critical)"
        assert get_queue_stats(app)["lanes"]["critical"]["waiting_for"] is None
        started.stop()
    assert why_silent(app, "batch") == ": no worker serves batch"


def test_the_figures_say_so_where_jobs_wait(app):
    """An empty lane without workers waits for nothing."""
    app.send_task("some.task", queue="batch")
    lanes = get_queue_stats(app)["lanes"]
    assert lanes["batch"]["waiting_for"] == "no worker serves batch"
    assert lanes["normal"]["waiting_for"] is None


def test_a_killed_workers_sign_lapses(app):
    """Nobody takes it away, so it lasts for 15 s and no longer, by the server's clock."""
    redis = redis_client(app)
    redis.zadd("lanes:workers:batch", {"killed": (time.time() - 16) * 1000})
    assert why_silent(app, "batch") == ": no worker serves batch"


def test_a_worker_that_serves_no_lane_leaves_no_sign(app, valkey, tmp_path):
    """It has nothing to do with the lanes."""
    project = tmp_path / "no_lane.py"
    project.write_text(
        "from celery import Celery\nfrom celery_app import install\n"
        "app = Celery('no_lane')\napp.conf.task_default_queue = 'mail'\ninstall(app)\n"
    )
    env = {"CELERY_BROKER_URL": valkey.url(DB), "EZAI_API_KEY": "sk-test", "PYTHONPATH": str(tmp_path)}
    with worker(tmp_path, "-Q", "mail", "-c", "1", app="no_lane", **env):
        assert not redis_client(app).keys("lanes:workers:*")
