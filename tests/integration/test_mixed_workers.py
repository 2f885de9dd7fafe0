"""A worker of lanes and of a project's own queues: each queue keeps the rules that it has."""

import importlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kit.worker import TO_START, worker

from tests.conftest import Valkey, close

HERE = str(Path(__file__).parent)
ROOT = str(Path(__file__).parents[2])

#: Seconds that a job may take on a busy machine.
IN_TIME_S = 20.0

DB = 13


@pytest.fixture
def env(valkey):
    """What a process of the project has in its environment, with an empty database; there is no API."""
    with valkey.client(DB) as redis:
        redis.flushdb()
    return {
        "C_FORCE_ROOT": "1",  # Celery lets nobody run a worker for pickle as root, as containers do
        "CELERY_BROKER_URL": valkey.url(DB),
        "EZAI_API_KEY": "sk-test",
        "EZAI_BASE_URL": "http://127.0.0.1:1",
        "PYTHONPATH": os.pathsep.join((HERE, ROOT)),
    }


@pytest.fixture
def app(env, monkeypatch):
    """The project's application in this process."""
    monkeypatch.setenv("CELERY_BROKER_URL", env["CELERY_BROKER_URL"])
    monkeypatch.delitem(sys.modules, "mixed", raising=False)  # each test closes what it has opened
    app = importlib.import_module("mixed").app
    yield app
    close(app)


@pytest.fixture(params=["threads", "prefork"])
def mixed(tmp_path, env, request):
    """Its worker."""
    arguments = ("-Q", "critical,own,topics", "-c", "2", "-P", request.param)
    with worker(tmp_path, *arguments, app="mixed", **env) as running:
        yield running


def ran(valkey: Valkey) -> list[bytes]:
    """Return what the project's tasks have noted."""
    with valkey.client(DB) as redis:
        return [*redis.lrange("mixed:ran", 0, -1)]


def test_own_queues_take_what_the_project_accepts(app, mixed, valkey):
    """JSON is for the lanes: a project that accepts pickle or signed jobs only gets no JSON in its own queues."""
    app.send_task("mixed.own", ("forged",), queue="own", serializer="json")
    assert app.send_task("mixed.own", (frozenset({1}),), queue="own").get(IN_TIME_S) == [frozenset({1}), "own"]
    for name, value in (("mixed.lane", "critical"), ("mixed.own", [None, "critical"])):
        assert app.tasks[name].apply_async(queue="critical").get(IN_TIME_S) == value
    mixed.wait_until_it_says("Refusing to deserialize untrusted content of type json", IN_TIME_S)
    assert b"forged" not in ran(valkey)


def test_a_routing_key_is_no_lane(app, mixed, valkey):
    """Jobs of an own queue whose routing key is called `critical` are its own: pickled, and gone when rejected."""
    assert mixed.process.poll() is None
    assert app.send_task("mixed.own", (frozenset({2}),), queue="topics").get(IN_TIME_S) == [frozenset({2}), "critical"]
    lane_task = app.tasks["mixed.lane"]
    assert lane_task.apply_async(queue="topics", serializer="pickle").get(IN_TIME_S) == "normal"
    app.send_task("mixed.thrown", ("thrown",), queue="topics")
    end = time.monotonic() + IN_TIME_S
    while b"thrown" not in ran(valkey):
        assert time.monotonic() < end
        time.sleep(0.02)
    assert app.send_task("mixed.own", (3,), queue="topics").get(IN_TIME_S) == [3, "critical"]
    with valkey.client(DB) as redis:
        assert not redis.zcard("lanes:dead")


def test_what_a_worker_in_python_is_told_holds(tmp_path, env):
    """A project's own command may be called `worker`, too."""
    command = [sys.executable, "-m", "mixed", "worker"]
    done = subprocess.run(
        command,
        check=False,
        env={**os.environ, **env},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TO_START,
    )
    assert done.stdout.split() == ["celery.concurrency.solo", "3"], done.stderr


def test_a_worker_of_two_brokers_is_refused(tmp_path, env):
    """The lanes are where jobs are written to; own queues that are read elsewhere need a worker of their own."""
    conf = '{"broker_read_url": "redis://127.0.0.1:1/0"}'
    arguments = ("-Q", "critical,own", "-c", "2")
    with worker(tmp_path, *arguments, app="mixed", ready=False, **env, MIXED_CONF=conf) as refusing:
        assert refusing.process.wait(TO_START) == 1
        assert "broker_read_url leads elsewhere" in refusing.output()
        assert "give own a worker of their own" in refusing.output()
