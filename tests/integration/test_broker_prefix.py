import json

import pytest
from kit.broker import Broker
from kit.script_client import ScriptClient
from kit.waiting import wait_until

from celery_app.errors import LaneFull

IN_TIME_S = 20.0
SLOTS = 2
PREFIX = "team:"
OPTIONS = {"global_keyprefix": PREFIX}


@pytest.fixture(scope="module")
def broker(valkey, tmp_path_factory):
    """A broker whose keys bear a prefix."""
    with Broker(tmp_path_factory.mktemp("prefix"), valkey.url(14)) as broker:
        broker.app = broker.make_app(OPTIONS)
        yield broker


@pytest.fixture(scope="module")
def worker(broker):
    """A worker that uses the prefix, with mingle and gossip, as by default."""
    return broker.worker(slots=SLOTS, app="kit.hasty", conf={"broker_transport_options": OPTIONS}, options=())


def test_jobs_are_done(broker, worker):
    """Jobs are published, claimed, done and acked under the prefix, singly and in a batch."""
    assert worker.process.poll() is None
    jobs = [f"j{n}" for n in range(20)]
    with broker.app.producer_or_acquire() as producer, producer.batch():
        for job in jobs[1:]:
            broker.send("kit.job", job, producer=producer, ignore_result=True)
    broker.send("kit.job", jobs[0], ignore_result=True)
    broker.event_log.wait_for("end", jobs, IN_TIME_S)
    wait_until(lambda: broker.client.zcard(f"{PREFIX}lanes:leases") == 0, "all are acked", IN_TIME_S)


def test_returns_and_countdowns_are_waited_for(broker, worker):
    """Retries and countdowns wait under the prefix and come back."""
    assert worker.process.poll() is None
    result = broker.send("kit.retrying", "r", [0.3], countdown=0.2)
    wait_until(lambda: broker.client.zcard(f"{PREFIX}lanes:scheduled") == 1, "it waits", IN_TIME_S)
    assert result.get(timeout=IN_TIME_S)["retries"] == 1


def test_garbage_is_kept(broker, worker):
    """Garbage goes to the dead letters under the prefix."""
    assert worker.process.poll() is None
    broker.client.lpush(f"{PREFIX}normal", "no json")
    broker.client.lpush(f"{PREFIX}normal", json.dumps({"properties": {"delivery_tag": "t", "delivery_info": {}}}))
    wait_until(lambda: len(ScriptClient(broker.client, PREFIX).dead()) == 2, "both are dead-lettered", IN_TIME_S)


def test_a_full_lane_says_so(broker):
    """The capacity holds under the prefix."""
    narrow = broker.make_app(OPTIONS, capacity=1, submit_wait=0.01)
    gated = [f"gated-{n}" for n in range(SLOTS)]
    for job in gated:
        broker.send("kit.gated", job, "gate", ignore_result=True)
    broker.event_log.wait_for("start", gated, IN_TIME_S)
    narrow.send_task("kit.job", ("fits",), queue="batch", ignore_result=True)
    with pytest.raises(LaneFull):
        narrow.send_task("kit.job", ("fits not",), queue="batch", ignore_result=True)
    broker.event_log.open_gate("gate")
    broker.event_log.wait_for("end", ["fits"], IN_TIME_S)


def test_remote_control_answers(broker, worker):
    """Ping, inspect and broadcasts reach the worker and come back, at once and repeatedly, busy or not."""
    control = broker.app.control
    for _ in range(3):
        assert control.ping([worker.name], timeout=IN_TIME_S, limit=1) == [{worker.name: {"ok": "pong"}}]
    stats = control.inspect([worker.name], timeout=IN_TIME_S, limit=1).stats()
    assert stats[worker.name]["pool"]["max-concurrency"] == SLOTS
    queues = control.inspect([worker.name], timeout=IN_TIME_S, limit=1).active_queues()
    assert {queue["name"] for queue in queues[worker.name]} == {"critical", "normal", "batch"}


def test_cancelling_a_lane(broker, worker):
    """A worker told to cancel a lane leaves its jobs alone, and takes them up when told to consume it again."""
    control = broker.app.control
    control.cancel_consumer("normal", destination=[worker.name], reply=True, timeout=IN_TIME_S, limit=1)
    broker.send("kit.job", "waits", queue="normal", ignore_result=True)
    broker.send("kit.job", "goes", queue="batch", ignore_result=True)
    broker.event_log.wait_for("end", ["goes"], IN_TIME_S)
    assert "waits" not in broker.event_log.jobs("start")
    control.add_consumer("normal", destination=[worker.name], reply=True, timeout=IN_TIME_S, limit=1)
    broker.event_log.wait_for("end", ["waits"], IN_TIME_S)


def test_a_killed_workers_job_comes_back(broker, worker):
    """Leases expire under the prefix: another worker gets the job of one that was killed."""
    broker.send("kit.gated", "orphan", "orphan", ignore_result=True)
    broker.event_log.wait_for("start", ["orphan"], IN_TIME_S)
    worker.kill()
    broker.worker("heir", slots=SLOTS, app="kit.hasty", conf={"broker_transport_options": OPTIONS})
    broker.event_log.open_gate("orphan")
    broker.event_log.wait_for("end", ["orphan"], IN_TIME_S)


def test_every_key_bears_the_prefix(broker, worker):
    """After all that, nothing but results, whose prefix is the backend's own, lies outside the prefix."""
    assert worker.name
    strays = [key for key in broker.client.keys("*") if not key.startswith((PREFIX.encode(), b"celery-task-meta-"))]
    assert [key for key in strays if not key.startswith(b"lanes:stats")] == []
