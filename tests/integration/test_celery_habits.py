"""What people do with Celery by habit, beside lanes: limits, remote control, waiting, beat, web threads."""

import dataclasses
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, chain
from celery.result import AsyncResult
from kit import records
from kit.client_rig import IN_TIME_S, params, web_app
from kit.waiting import in_time, wait_until
from kit.worker import WorkerProcess, worker
from kombu import Queue

from celery_app import create_app
from celery_app.client import Client
from celery_app.connections.redis_client import redis_client
from celery_app.errors import LaneFull, WouldBlock
from celery_app.lanes import LANES
from celery_app.settings import Settings
from demo.simulator import Behaviour, running
from tests.conftest import close

#: Celery 5.7 stores a result by a command that redis-py 8 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

HERE = str(Path(__file__).parent)
ROOT = str(Path(__file__).parents[2])

#: Seconds that a publisher to a full lane is held up at most: 2, and what his own work takes.
SOON = 4.0

ALL = ("-Q", "critical,normal,batch,own")


@pytest.fixture
def app(valkey):
    """A web app on an empty database."""
    with valkey.client(14) as redis:
        redis.flushdb()
    app = web_app(valkey.url(14))
    app.amqp.queues.add(Queue("own", routing_key="own"))
    yield app
    close(app)


@contextmanager
def workers(app: Celery, tmp_path: Path, *arguments: str, ready: bool = True, **env: str) -> Iterator[WorkerProcess]:
    """Run a worker of the project `habits` beside a simulated API."""
    with running(Behaviour(latency=0.0)) as api:
        env = {"CELERY_BROKER_URL": app.conf.broker_write_url, "EZAI_API_KEY": "k", "EZAI_BASE_URL": api.url, **env}
        with worker(tmp_path, *arguments, app="habits", ready=ready, **env) as started:
            yield started


def sent(app: Celery, name: str, *args: Any, queue: str = "normal") -> AsyncResult:
    """Send a job by name."""
    return app.send_task(name, args, queue=queue)


def test_a_worker_refuses_a_rate_limit_that_a_lane_task_declares(app, tmp_path):
    """One line with the reason and the setting that does it right; a worker that serves no lane does not mind."""
    env = {"HABITS_LANE_RATE": "10/m"}
    with workers(app, tmp_path, *ALL, ready=False, **env) as refusing:
        assert refusing.process.wait(IN_TIME_S * 2) == 1
        last = refusing.output().strip().splitlines()[-1]
        assert "habits.lane" in last
        assert "EZAI_RPM" in last
        assert "Traceback" not in refusing.output()


@pytest.mark.parametrize("setting", ["HABITS_DEFAULT_RATE", "HABITS_RATE"])
def test_a_projects_default_rate_limit_ends_before_the_lanes(app, tmp_path, setting):
    """With one slot and one job a minute allowed, lane jobs run at once."""
    with workers(app, tmp_path, *ALL, "-c", "1", **{setting: "1/m"}):
        ran = [sent(app, "habits.lane", n).get(timeout=IN_TIME_S) for n in range(5)]
        assert ran == sorted(ran)


def test_a_rate_limit_at_run_time_is_refused_for_lane_tasks_only(app, tmp_path):
    """The answer says why, and no job is parked; the limits of a project's own tasks work on."""
    with workers(app, tmp_path, *ALL, "-c", "1"):
        control = app.control
        for name in ("habits.lane", "tasks.create_message"):
            for answer in replies(control.rate_limit(name, "1/h", reply=True, timeout=IN_TIME_S, limit=1)):
                assert "EZAI_RPM" in answer["error"]
            for answer in replies(control.time_limit(name, soft=1, hard=2, reply=True, timeout=IN_TIME_S, limit=1)):
                assert "LANES_<LANE>_CALL_TIMEOUT" in answer["error"]
        for _ in range(3):
            assert sent(app, "habits.lane").get(timeout=IN_TIME_S)

        (answer,) = replies(control.rate_limit("habits.own", "2/s", reply=True, timeout=IN_TIME_S, limit=1))
        assert answer == {"ok": "new rate limit set successfully"}
        ran = [result.get(timeout=IN_TIME_S) for result in [sent(app, "habits.own", queue="own") for _ in range(4)]]
        assert max(ran) - min(ran) > 0.9
        (answer,) = replies(control.rate_limit("no.such", "2/s", reply=True, timeout=IN_TIME_S, limit=1))
        assert answer == {"error": "unknown task"}


def replies(answers: Any) -> list[dict[str, Any]]:
    """Return what workers answered, without their names."""
    found = [answer for each in answers for answer in each.values()]
    assert found, "no worker has answered"
    return found


def test_a_rate_limit_of_a_projects_own_task_does_not_park_a_lanes_jobs(app, tmp_path):
    """Sent through a lane, it runs at once, and the worker says that its limit does not count there."""
    with workers(app, tmp_path, *ALL, "-c", "1", HABITS_DEFAULT_RATE="1/h") as started:
        for _ in range(3):
            assert sent(app, "habits.own", queue="batch").get(timeout=IN_TIME_S)
        started.wait_until_it_says("the rate_limit of habits.own does not count in the lane batch")


def test_a_job_that_expired_in_its_lane_does_not_run(app, tmp_path):
    """As everywhere in Celery; whoever asks is told that it was revoked."""
    past = datetime.now(UTC) - timedelta(seconds=1)
    expired = app.send_task("habits.lane", queue="normal", expires=past)
    kept = app.send_task("habits.lane", queue="normal", expires=600)
    with workers(app, tmp_path, *ALL, "-c", "1"):
        assert kept.get(timeout=IN_TIME_S)
        wait_until(lambda: expired.state == "REVOKED", "the expiry")


@pytest.mark.parametrize("task", ["asks", "streams", "collects", "gets"])
def test_waiting_within_a_task_is_refused(app, tmp_path, task):
    """Two slots with two such tasks would wait for each other; they fail at once and say what to do."""
    batch = Client(app).submit_many([params()], "critical")
    arguments = (batch.id,) if task == "collects" else ()
    queues = ("-Q", "normal") if task == "collects" else ALL
    with workers(app, tmp_path, *queues, "-c", "2"):
        results = [sent(app, f"habits.{task}", *arguments) for _ in range(4)]
        for result in results:
            expected = RuntimeError if task == "gets" else WouldBlock
            with pytest.raises(expected) as caught:
                result.get(timeout=IN_TIME_S)
            assert task == "gets" or "chain(create_message.si(" in str(caught.value)


def test_who_knows_that_others_serve_the_lane_may_wait(app, tmp_path):
    """Within Celery's own `allow_join_result`; and a batch that is complete is there to be read."""
    with workers(app, tmp_path, *ALL, "-c", "2"):
        assert sent(app, "habits.asks_allowed").get(timeout=IN_TIME_S)
        batch = Client(app).submit_many([params()] * 3)
        assert len(list(batch.results(IN_TIME_S))) == 3
        assert sent(app, "habits.collects", batch.id).get(timeout=IN_TIME_S) == 3


# A full lane ------------------------------------------------------------------------------------------------------


def test_the_defaults_are_short():
    """A web thread, or beat, is held up for 2 s at most."""
    assert [lane.submit_wait for lane in LANES] == [1, 2, 2]


@pytest.fixture
def full(app):
    """A web app whose lanes have room for one job each, and have it; nobody works."""
    broker = app.conf.broker_write_url
    lanes = tuple(dataclasses.replace(lane, capacity=1) for lane in LANES)
    narrow = create_app(Settings(broker_url=broker, result_backend=broker, lanes=lanes))
    for lane in LANES:
        Client(narrow).submit(lane.name, **params())
    yield narrow
    close(narrow)


def make_room(app: Celery) -> None:
    """Take what waits in `batch` away."""
    with app.connection_for_write() as connection:
        connection.default_channel.queue_purge("batch")


@pytest.mark.parametrize("lane", LANES, ids=lambda lane: lane.name)
def test_a_web_thread_hears_of_a_full_lane_soon(full, lane):
    """Whichever lane it is, and by whichever call."""
    begun = time.monotonic()
    with pytest.raises(LaneFull):
        Client(full).submit(lane.name, **params())
    assert lane.submit_wait <= time.monotonic() - begun < in_time(SOON)


def test_who_has_the_time_waits_longer(full):
    """`submit(…, wait=)`, `apply_async(…, wait=)` and none of it in the message; a place that comes free is taken."""
    redis = redis_client(full)
    timer = threading.Timer(2.5, lambda: make_room(full))
    timer.start()
    try:
        sent = Client(full).submit("batch", wait=IN_TIME_S, **params())
    finally:
        timer.join()
    (job_id,) = records.queued(redis, "batch")
    message = json.loads(redis.hget("lanes:texts", job_id))
    assert job_id == message["headers"]["id"] == sent.id
    assert "wait" not in message["properties"]

    begun = time.monotonic()
    task = full.tasks["tasks.create_message"]
    with pytest.raises(LaneFull):
        task.apply_async(kwargs=params(), queue="batch", wait=0)
    assert time.monotonic() - begun < in_time(SOON)
    with pytest.raises(ValueError, match="wait= takes seconds"):
        task.apply_async(kwargs=params(), queue="batch", wait=-1)


def test_a_job_in_hand_waits_longer_for_the_next_step_of_its_chain(app, tmp_path):
    """Its own answer would be lost with the chain, and it holds up neither a person nor beat."""
    Client(app).submit("batch", **params())
    redis = redis_client(app)
    with workers(app, tmp_path, "-Q", "critical", LANES_BATCH_CAPACITY="1") as started:
        steps = [app.signature("habits.lane", queue=queue, immutable=True) for queue in ("critical", "batch")]
        last = chain(steps, app=app).apply_async()
        started.wait_until_it_says("received")
        begun = time.monotonic()
        # Longer than the lane's own submit_wait: the chain is still there.
        wait_until(lambda: time.monotonic() > begun + 3, "the lane's patience is over")
        make_room(app)
        wait_until(lambda: records.queued(redis, "batch") == [last.id], "the next step")


def test_a_batch_waits_as_long_as_is_asked_and_reports_meanwhile(full):
    """By default as long as the lane says; what is queued by then can be found."""
    begun, reports = time.monotonic(), list[int]()
    with pytest.raises(LaneFull) as caught:
        Client(full).submit_many([params()] * 3)
    assert time.monotonic() - begun < in_time(SOON)
    assert Client(full).load_batch(caught.value.batch_id).counts().queued == 0  # type: ignore[attr-defined]

    def progress(batch: Any) -> None:
        reports.append(batch.counts().queued)
        make_room(full)

    # A place comes free with each report only, and between two of them is more time than `wait` has by default.
    assert Client(full).submit_many([params()] * 3, wait=IN_TIME_S, progress=progress).counts().queued == 3
    assert reports == sorted(reports)
    assert reports[0] == 0


BEAT = {
    "into the full lane": {
        "task": "tasks.create_message",
        "schedule": 1.0,
        "kwargs": params(),
        "options": {"queue": "batch"},
    },
    "own": {"task": "habits.own", "schedule": 1.0, "options": {"queue": "own"}},
}


def test_beat_keeps_ticking_beside_a_full_lane(app, tmp_path):
    """Its other entries come, each a few seconds late at most, and its log says which one did not."""
    path = {"PYTHONPATH": os.pathsep.join((HERE, ROOT)), "CELERY_BROKER_URL": app.conf.broker_write_url}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CELERY_", "EZAI_", "LANES_"))}
    env = {**kept, **path, "HABITS_SCHEDULE": json.dumps(BEAT), "LANES_BATCH_CAPACITY": "1"}
    Client(app).submit("batch", **params())
    log = tmp_path / "beat.log"
    command = [sys.executable, "-m", "celery", "-A", "habits", "beat", "-s", str(tmp_path / "schedule"), "-l", "INFO"]
    redis, times = redis_client(app), list[float]()
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output, env=env) as beat:
        try:
            end = time.monotonic() + 2 * IN_TIME_S
            while len(times) < 4:
                assert time.monotonic() < end, log.read_text()
                assert beat.poll() is None, log.read_text()
                if redis.llen("own") > len(times):
                    times.append(time.monotonic())
                time.sleep(0.02)
        finally:
            beat.terminate()
            beat.wait(IN_TIME_S)
    said = log.read_text()
    assert max(late - early for early, late in itertools.pairwise(times)) < in_time(SOON + 1), said
    assert "The lane batch is full" in said
