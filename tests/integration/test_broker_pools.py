import os
import signal
import subprocess
import time

import pytest
from kit.broker import Broker
from kit.waiting import wait_until
from kit.worker import Worker

IN_TIME_S = 30.0
SLOTS = 3
PREFORK = {"worker_pool": "prefork"}


@pytest.fixture(scope="module")
def broker(valkey, tmp_path_factory):
    """A broker for this file."""
    with Broker(tmp_path_factory.mktemp("pools"), valkey.url(8)) as broker:
        yield broker


@pytest.fixture(scope="module")
def worker(broker):
    """A worker of a project that runs its tasks in processes."""
    return broker.worker(slots=SLOTS, conf=PREFORK)


def children(worker: Worker) -> list[int]:
    """Return the processes of a worker's pool."""
    found = subprocess.run(
        ["/usr/bin/env", "pgrep", "-P", str(worker.process.pid)], capture_output=True, text=True, check=False
    )
    return [int(pid) for pid in found.stdout.split()]


def all_slots_work(broker: Broker, worker: Worker, name: str) -> None:
    """Run as many jobs at once as there are slots."""
    jobs = [f"{name}-{n}" for n in range(SLOTS)]
    for job in jobs:
        broker.send("kit.gated", job, name, queue="critical", ignore_result=True)
    try:
        broker.event_log.wait_for("start", jobs, IN_TIME_S)
    finally:
        broker.event_log.open_gate(name)
    broker.event_log.wait_for("end", jobs, IN_TIME_S)
    wait_until(lambda: broker.in_flight() == 0, f"all are acked; {worker.output()[-2000:]}", IN_TIME_S)


def test_the_pool_is_prefork(broker, worker):
    """The project's own choice of pool stays, and its processes do the work."""
    assert len(children(worker)) >= SLOTS
    all_slots_work(broker, worker, "prefork")


def test_a_retry_from_a_pools_process(broker, worker):
    """`self.retry` in a pool's process keeps id, lane and priority, counts, and waits in the broker."""
    result = broker.send("kit.retrying", "retried", [0.3, 0.1], queue="normal", priority=9)
    wait_until(lambda: broker.client.zcard("lanes:scheduled") == 1, "the return", IN_TIME_S)
    assert result.get(timeout=IN_TIME_S) == {"id": result.id, "lane": "normal", "priority": 9, "retries": 2}
    all_slots_work(broker, worker, "after-retry")


def test_a_pools_process_is_killed(broker, worker):
    """A job whose process dies under it runs again at once, in another; the slot is not lost."""
    start = time.monotonic()
    broker.send("kit.killer", "killer", ignore_result=True)
    broker.event_log.wait_for("end", ["killer"], IN_TIME_S)
    assert time.monotonic() - start < IN_TIME_S / 2
    assert broker.event_log.counts("start")["killer"] == 2
    all_slots_work(broker, worker, "after-kill")


@pytest.mark.slow
def test_a_job_that_kills_its_processes_is_dead_lettered(broker, worker):
    """A job under which every process dies gets five of them and is then among the dead letters; the worker goes on."""
    broker.send("kit.killer", "poison", 100, ignore_result=True)
    wait_until(lambda: broker.scripts().dead(), "the dead-lettering", IN_TIME_S)
    assert broker.event_log.counts("start")["poison"] == 5
    all_slots_work(broker, worker, "after-poison")


def test_a_process_of_the_pool_ends_without_work(broker, worker):
    """Killing an idle process of the pool returns nothing that others hold, and costs no slot."""
    jobs = [f"beside-{n}" for n in range(SLOTS - 1)]
    for job in jobs:
        broker.send("kit.gated", job, "beside", ignore_result=True)
    broker.event_log.wait_for("start", jobs, IN_TIME_S)
    os.kill(children(worker)[-1], signal.SIGTERM)
    broker.send("kit.job", "beside-too", ignore_result=True)
    broker.event_log.open_gate("beside")
    broker.event_log.wait_for("end", [*jobs, "beside-too"], IN_TIME_S)
    wait_until(lambda: broker.in_flight() == 0, "all are acked", IN_TIME_S)
    all_slots_work(broker, worker, "after-end")


@pytest.mark.parametrize("conf", [{}, PREFORK], ids=["threads", "prefork"])
def test_a_killed_workers_jobs_come_back(tmp_path, valkey, conf):
    """Jobs of a worker killed as a whole are back when its leases expire, ahead of what came later."""
    with Broker(tmp_path, valkey.url(10)) as broker:
        killed, other = broker.workers("killed", "other", slots=SLOTS, conf=conf, app="kit.hasty")
        jobs = [f"flight-{n}" for n in range(2 * SLOTS)]
        for job in jobs:
            broker.send("kit.gated", job, "flight", ignore_result=True)
        broker.event_log.wait_for("start", jobs, IN_TIME_S)
        lost = [entry.job for entry in broker.event_log.read("start") if entry.worker == killed.name]
        assert len(lost) == SLOTS
        killed.kill()
        for n in range(30):
            broker.send("kit.job", f"later-{n}", ignore_result=True)
        # Every slot of the other is busy: only its sign of life can bring the jobs back.
        wait_until(lambda: broker.in_flight() == SLOTS, "the killed worker's jobs are back", IN_TIME_S)
        broker.event_log.open_gate("flight")
        broker.event_log.wait_for("end", [*jobs, "later-29"], IN_TIME_S)
        order = broker.event_log.jobs("start")
        agains = {job: len(order) - 1 - order[::-1].index(job) for job in lost}
        assert max(agains.values()) < order.index("later-20")
        assert {entry.worker for entry in broker.event_log.read("start") if entry.job in lost} == {
            killed.name,
            other.name,
        }
