import time

import pytest
from celery import Celery
from kit.broker import Broker
from kit.waiting import wait_until
from kombu import Exchange, Queue

from celery_app.broker.claiming import MOST_AT_ONCE

IN_TIME_S = 20.0
SLOTS = 4


@pytest.fixture(scope="module")
def broker(valkey, tmp_path_factory):
    """A broker for this file."""
    with Broker(tmp_path_factory.mktemp("returns"), valkey.url(6)) as broker:
        yield broker


@pytest.fixture(scope="module")
def worker(broker):
    """A worker on threads that serves all lanes and a queue of the project's own."""
    return broker.worker(slots=SLOTS, queues="batch,own,critical,normal")


@pytest.fixture
def full(broker, worker, request):
    """Have all slots busy until the returned function is called."""
    assert worker.process.poll() is None
    gate = request.node.name
    jobs = [f"{gate}-{n}" for n in range(SLOTS)]
    for job in jobs:
        broker.send("kit.gated", job, gate, queue="critical", ignore_result=True)
    broker.event_log.wait_for("start", jobs, IN_TIME_S)
    yield lambda: broker.event_log.open_gate(gate)
    broker.event_log.open_gate(gate)
    broker.event_log.wait_for("end", jobs, IN_TIME_S)


def test_who_has_lost_a_job_does_not_end_it(broker, worker):
    """A worker whose lease was over neither fails a job nor returns it: it is in other hands, whose word counts."""
    assert worker.process.poll() is None
    ways = {"returned": 99, "given up": 0, "failed": None}
    jobs = {way: broker.send("kit.failing", way, "lost", retries) for way, retries in ways.items()}
    busy = broker.send("kit.gated", "busy", "lost", queue="critical")  # or the worker would claim them itself
    broker.event_log.wait_for("start", [*ways, "busy"], IN_TIME_S)
    broker.client.zadd("lanes:leases", {job.id: 0 for job in jobs.values()}, xx=True)
    held = broker.scripts().claim(len(jobs))
    assert sorted(each.tag for each in held) == sorted(job.id for job in jobs.values())
    broker.event_log.open_gate("lost")
    assert busy.get(timeout=IN_TIME_S) == "busy"
    broker.event_log.wait_for("end", ways, IN_TIME_S)
    wait_until(lambda: "kit.failing" not in active(broker), "its slots are free", IN_TIME_S)
    assert {way: job.state for way, job in jobs.items()} == dict.fromkeys(ways, "PENDING")
    assert [broker.scripts().ack(each) for each in held] == [1, 1, 1]
    assert broker.client.zcard("lanes:dead") == 0


def active(broker: Broker) -> list[str]:
    """Return the names of the tasks that the workers are busy with."""
    jobs = broker.app.control.inspect(timeout=1.0).active() or {}
    return [job["name"] for of_worker in jobs.values() for job in of_worker]


@pytest.mark.parametrize(("lane", "priority"), [("critical", 0), ("normal", 3), ("batch", 9)])
def test_a_retry_keeps_what_the_job_is(broker, worker, lane, priority):
    """`self.retry` keeps id, lane and priority, counts its retries, and shows RETRY until the job is done."""
    assert worker.process.poll() is None
    name = f"kept-{lane}"
    result = broker.send("kit.retrying", name, [0.05, 0.5], "问" * 5_000, queue=lane, priority=priority)
    wait_until(lambda: len(broker.event_log.by_job("start")[name]) == 2, "the first retry", IN_TIME_S)
    wait_until(lambda: result.state == "RETRY", "the state RETRY", IN_TIME_S)
    assert result.get(timeout=IN_TIME_S) == {"id": result.id, "lane": lane, "priority": priority, "retries": 2}
    first, second, third = broker.event_log.by_job("start")[name]
    assert second.at - first.at >= 0.05
    assert third.at - second.at >= 0.5


def test_a_retry_goes_ahead_of_fresh_jobs(broker, full):
    """A job whose retry is due starts before a thousand that came later, in its lane."""
    broker.send("kit.retrying", "ahead", [0.3], ignore_result=True)
    full()
    wait_until(lambda: broker.client.zcard("lanes:scheduled") == 1, "the return", IN_TIME_S)
    # More work than four slots can do before it is due.
    jobs = [f"behind-{n}" for n in range(40)]
    for job in jobs:
        broker.send("kit.job", job, 0.1, ignore_result=True)
    broker.event_log.wait_for("end", [*jobs, "ahead"], IN_TIME_S)
    order = broker.event_log.jobs("start")
    assert (
        len([job for job in order[: len(order) - order[::-1].index("ahead")] if job.startswith("behind")]) < 40 - SLOTS
    )


def test_countdown_jobs_do_not_overtake_critical_ones(broker, full):
    """Batch jobs that fall due while all slots are busy come after a critical job that is queued by then."""
    jobs = [f"due-{n}" for n in range(8)]
    for job in jobs:
        broker.send("kit.job", job, countdown=0.2, ignore_result=True)
    last_due = time.time() + 0.2
    broker.send("kit.job", "urgent", queue="critical", ignore_result=True)
    # Whether a due job is in its lane by then is the scheduler's affair: the time alone decides that it is due.
    wait_until(lambda: time.time() > last_due, "all are due", IN_TIME_S)
    full()
    broker.event_log.wait_for("end", jobs, IN_TIME_S)
    order = [job for job in broker.event_log.jobs("start") if job in {*jobs, "urgent"}]
    assert "urgent" in order[:MOST_AT_ONCE]  # what one claim hands out starts at the same moment


def test_a_rejected_job_comes_back_five_times(broker, worker):
    """A task that always rejects its job with requeue gets it five times, and then it is among the dead letters."""
    assert worker.process.poll() is None
    broker.send("kit.rejected", "rejected", ignore_result=True)
    wait_until(lambda: broker.scripts().dead(), "the dead-lettering", IN_TIME_S)
    assert broker.event_log.counts("start")["rejected"] == 5
    assert broker.in_flight() == 0


def test_a_queue_of_ones_own_beside_the_lanes(broker, worker):
    """The same worker serves a queue of the project's own, with priorities of its own."""
    assert worker.process.poll() is None
    app = Celery("plain", broker=broker.broker_url, set_as_current=False)
    app.conf.task_queues = [Queue("own", routing_key="own")]
    for n in range(5):
        app.send_task("kit.job", (f"own-{n}",), queue="own", ignore_result=True)
    broker.event_log.wait_for("end", [f"own-{n}" for n in range(5)], IN_TIME_S)
    app.close()


def test_a_stock_producer_is_served_in_lane_order(broker, worker):
    """Stock Celery puts 300 into batch, 50 into normal, 50 into critical at priority 9: they start in lane order."""
    worker.kill()
    app = Celery("stock", broker=broker.broker_url, set_as_current=False)
    app.conf.task_queues = [
        Queue(name, Exchange(name, type="direct"), routing_key=name) for name in ("critical", "normal", "batch")
    ]
    for lane, count, options in (("batch", 300, {}), ("normal", 50, {}), ("critical", 50, {"priority": 9})):
        with app.producer_or_acquire() as producer, producer.batch():
            for n in range(count):
                app.send_task("kit.job", (f"{lane}-{n}",), queue=lane, producer=producer, ignore_result=True, **options)
    broker.worker("stock", slots=1)
    names = [f"{lane}-{n}" for lane, count in (("critical", 50), ("normal", 50), ("batch", 300)) for n in range(count)]
    broker.event_log.wait_for("end", names, 3 * IN_TIME_S)
    assert [job for job in broker.event_log.jobs("start") if job in set(names)] == names
    app.close()
