"""What operators change while all runs, on the command line and with real workers."""

import json
import os
import subprocess
import sys
import time
from typing import Any

import pytest
from celery import chain
from kit.broker import Broker
from kit.client_rig import IN_TIME_S, fresh, params, rig
from kit.waiting import wait_until
from kit.worker import worker

from celery_app import controls
from celery_app.metrics.stats import get_queue_stats

#: Celery 5.7 stores a result by a command that redis-py 8 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

#: Slots of each of the two workers.
SLOTS = 4

#: Databases of this module's own, for the jobs and for the event log that lies behind it.
DB, LIMITS_DB = 8, 10

#: Seconds that a command may take, on a busy machine.
COMMAND_S = 60.0


def lanes(broker: str, *words: str, app: str = "celery_app", ok: bool = True) -> str:
    """Run a command as an operator does; return what it says."""
    line = [sys.executable, "-m", "celery", "-A", app, "lanes", *words]
    env = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME", "USER") if name in os.environ}
    done = subprocess.run(
        line, env={**env, "CELERY_BROKER_URL": broker}, capture_output=True, text=True, timeout=COMMAND_S, check=False
    )
    assert (done.returncode == 0) == ok, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout if ok else done.stderr


@pytest.fixture
def broker(valkey, tmp_path):
    """Two workers for all lanes, of a project of its own."""
    with Broker(tmp_path, valkey.url(DB)) as made:
        made.workers("one", "two", slots=SLOTS)
        yield made


def started(broker: Broker, lane: str) -> int:
    """Return how many jobs of a lane have started."""
    return sum(job.startswith(lane) for job in broker.event_log.jobs("start"))


def place(broker: Broker, lane: str) -> dict[str, Any]:
    """Return the figures of a lane."""
    lane_stats: dict[str, Any] = get_queue_stats(broker.app)["lanes"][lane]
    return lane_stats


def test_a_paused_lane_starts_nothing_and_the_rest_goes_on(broker):
    """With two workers at work: what runs ends, then the lane stands still; resumed, it goes on to its end."""
    jobs = 400
    with broker.app.producer_or_acquire() as producer, producer.batch():  # faster than they are worked on
        for number in range(jobs):
            broker.send("kit.job", f"batch-{number}", 0.05, producer=producer)
    wait_until(lambda: started(broker, "batch") > SLOTS, "the lane is at work", IN_TIME_S)
    controls.pause(broker.app, "batch")
    queued = place(broker, "batch")["depth"]
    assert queued > 0
    for number in range(jobs // 2):
        broker.send("kit.job", f"normal-{number}", 0.02, queue="normal")
    broker.send("kit.job", "batch-more", 0.0)
    broker.event_log.wait_for("end", [f"normal-{number}" for number in range(jobs // 2)], IN_TIME_S)
    assert (place(broker, "batch")["depth"], place(broker, "batch")["in_flight"]) == (queued + 1, 0)
    assert started(broker, "batch") == jobs - queued

    assert "not paused" in lanes(broker.broker_url, "resume", "batch")
    broker.event_log.wait_for("end", ["batch-more", *(f"batch-{number}" for number in range(jobs))], IN_TIME_S)
    assert max(broker.event_log.counts("start").values()) == 1


def test_a_lane_is_drained(broker):
    """The command returns when the lane is empty; then jobs are taken again, unless they are not to be."""
    for number in range(40):
        broker.send("kit.job", f"batch-{number}", 0.02)
    assert "batch: empty" in lanes(broker.broker_url, "drain", "batch", "--keep")
    assert broker.event_log.done() == 40
    assert [each.kind for each in controls.read_controls(broker.app)] == ["drain"]
    lanes(broker.broker_url, "drain", "batch", "--open")
    broker.send("kit.job", "batch-more", 0.0)
    broker.event_log.wait_for("end", ["batch-more"], IN_TIME_S)


def test_what_follows_a_job_in_hand_goes_into_a_drained_lane(broker):
    """The next step of a chain is worked on: what its first has paid for is not lost."""
    steps = {"kit.gated": ("first", "gate"), "kit.job": ("then", 0.0)}
    chain(
        *(broker.app.signature(name, args, queue="batch", immutable=True) for name, args in steps.items())
    ).apply_async()
    broker.event_log.wait_for("start", ["first"], IN_TIME_S)
    controls.drain(broker.app, "batch")
    broker.event_log.open_gate("gate")
    broker.event_log.wait_for("end", ["then"], IN_TIME_S)


def test_all_workers_hold_a_limit_that_was_changed(valkey, tmp_path):
    """Half a second later the API has of both no more calls than the new limit allows; reset, it has more again."""
    with (
        rig(valkey, LIMITS_DB, tmp_path, slots=SLOTS, EZAI_RPM="60000") as up,
        worker(tmp_path, "-c", str(SLOTS), **up.env),
    ):
        fresh(up, latency=0.02)
        up.client.submit_many([params(f"{n}") for n in range(3_000)], lane="batch", wait=IN_TIME_S)
        wait_until(lambda: len(up.api.calls()) > 20 * SLOTS, "the workers are at work", IN_TIME_S)
        controls.set_limits(up.app, {"rpm": 300}, model="*")
        time.sleep(0.5)
        before = len(up.api.calls())
        since = time.monotonic()
        wait_until(lambda: len(up.api.calls()) >= before + 30, "some calls more", IN_TIME_S)
        took = time.monotonic() - since
        count = len(up.api.calls()) - before
        assert count <= 5 * 0.98 * took + 5 + 2 * SLOTS

        controls.reset_limits(up.app)
        slow = len(up.api.calls())
        since = time.monotonic()
        wait_until(lambda: len(up.api.calls()) > slow + 300, "the old limit", IN_TIME_S)
        assert time.monotonic() - since < 300 / 5


def test_limits_are_shown_set_and_reset_on_the_command_line(valkey, broker_url):
    """Each with where it comes from; what is wrong is one line, with what would be right."""
    lanes(broker_url, "limits", "set", "*haiku*", "rpm=2000", "itpm=none", "--new")
    lanes(broker_url, "limits", "set", "--tenant", "acme", "weight=3")
    lines = lanes(broker_url, "limits", "set", "--lane", "batch", "share=0.1", "capacity=500").splitlines()
    shown = {" ".join(line.split()[:4]): line for line in lines}
    assert "@" in shown["lane batch capacity 500"]
    assert "default" in shown["lane batch floor 0.5"]
    assert "@" in shown["model *haiku* rpm 2,000"]
    assert "model *haiku* itpm no" in shown
    assert "tenant acme weight 3" in shown
    told = json.loads(lanes(broker_url, "limits", "--json"))["limits"]
    assert [row["from"] for row in told if row["field"] in {"weight", "floor"}] == ["default"] * 3 + ["run time"]
    lanes(broker_url, "limits", "reset", "--lane", "batch", "share")
    lanes(broker_url, "limits", "reset", "*haiku*")
    lanes(broker_url, "limits", "reset")
    with valkey.client() as client:
        assert set(client.hkeys("lanes:controls")) == {b"revision"}

    assert lanes(broker_url, "pause", "batsh", ok=False) == "Error: 'batsh' is no lane, did you mean 'batch'?\n"
    assert "did you mean 'rpm'" in lanes(broker_url, "limits", "set", "*", "rpn=3", ok=False)
    assert "is no duration" in lanes(broker_url, "pause", "batch", "--for", "soon", ok=False)
