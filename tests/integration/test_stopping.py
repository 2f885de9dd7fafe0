"""A worker that is told to stop, once, twice, or along with its processes: what runs ends or goes back."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from kit.broker import Broker
from kit.client_rig import params, rig
from kit.script_client import MAX_DEATHS
from kit.waiting import wait_until

from celery_app.connections.redis_client import redis_client
from celery_app.keys import LEAVING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Valkey

IN_TIME_S = 30.0

#: Seconds after which a second signal is one: twice what `celery_app.stopping.stopper` says.
ANOTHER = 2.0

#: Deployments that a job lives through, each of which kills its worker: more than deaths that it would not survive.
DEPLOYMENTS = 2 * MAX_DEATHS

slow = pytest.mark.slow
POOLS = ["threads", pytest.param("solo", marks=slow), pytest.param("prefork", marks=slow)]
REST = ["rest-0", "rest-1", "rest-2"]


@pytest.fixture
def broker(tmp_path: Path, valkey: Valkey) -> Iterator[Broker]:
    """An empty broker."""
    with Broker(tmp_path, valkey.url(12)) as broker:
        yield broker


def conf_of(pool: str, **more: Any) -> dict[str, Any]:
    """Return a project's configuration; threads are a lane's worker's own choice."""
    return more if pool == "threads" else {"worker_pool": pool, **more}


def flight(broker: Broker, slots: int = 2, task: str = "kit.gated") -> list[str]:
    """Have all slots busy with what cannot be interrupted, with more jobs behind."""
    jobs = [f"flight-{n}" for n in range(slots)]
    for job in jobs:
        broker.send(task, job, "flight", task_id=job, ignore_result=True)
    for name in REST:
        broker.send("kit.job", name, task_id=name, ignore_result=True)
    broker.event_log.wait_for("start", jobs, IN_TIME_S)
    return jobs


def untouched(broker: Broker, count: int) -> list[str]:
    """Return the jobs in their order; none of them has spent an attempt, or is suspected of anything."""
    held = broker.scripts().claim(count)
    assert {(each.job.tries, each.job.suspect) for each in held} == {(0, False)}
    return [each.name for each in held]


@pytest.mark.parametrize("pool", POOLS)
def test_a_second_sigterm_gives_back_what_runs(broker: Broker, pool: str) -> None:
    """Two within a second are one, and jobs go on; after one more they are back in front, and the worker ends."""
    worker = broker.worker(slots=2, conf=conf_of(pool))
    jobs = flight(broker, 1 if pool == "solo" else 2)
    worker.send(signal.SIGTERM)
    worker.send(signal.SIGTERM)
    time.sleep(ANOTHER)
    assert broker.in_flight() == len(jobs)
    assert worker.process.poll() is None
    assert worker.stop(signal.SIGTERM, IN_TIME_S) == 0
    assert broker.event_log.jobs("end") == []
    assert untouched(broker, 10) == jobs + REST


@pytest.mark.parametrize("pool", ["solo", pytest.param("threads", marks=slow)])
def test_sigquit_gives_back_what_cannot_be_interrupted(broker: Broker, pool: str) -> None:
    """Celery raises in its handler, for threads and in the very job of a solo worker, which was lost by that."""
    worker = broker.worker(slots=2, conf=conf_of(pool))
    jobs = flight(broker, 1 if pool == "solo" else 2)
    assert worker.stop(signal.SIGQUIT, IN_TIME_S) == 0
    assert broker.event_log.jobs("end") == []
    assert untouched(broker, 10) == jobs + REST


def test_calls_are_hung_up_on(valkey: Valkey, tmp_path: Path) -> None:
    """After a second SIGTERM the API is let go and the jobs are back, though their calls take minutes."""
    with rig(valkey, 8, tmp_path, slots=3) as up:
        up.api.control(latency=100.0)
        up.client.submit("critical", **params())
        up.client.submit("batch", **params())
        up.client.stream(**params())
        wait_until(lambda: up.api.summary()["in_flight"] == 3, "three calls at the API")
        up.worker.process.send_signal(signal.SIGTERM)
        wait_until(lambda: redis_client(up.app).keys(LEAVING.of("", "*")), "it says that it stops")
        wait_until(lambda: not redis_client(up.app).zcard("lanes:workers:critical"), "nobody serves the lane any more")
        time.sleep(ANOTHER)
        assert up.worker.stop() == 0
        assert [call["closed_by_client"] > 0 for call in up.api.calls()] == [True] * 3
        assert redis_client(up.app).zcard("lanes:leases") == 0
        assert redis_client(up.app).hmget("lanes:counts", "critical:queued", "batch:queued") == [b"2", b"1"]


def test_who_was_told_to_stop_died_of_no_job(broker: Broker) -> None:
    """A job whose worker is told to stop and killed, at each of many deployments, is not even a suspect."""
    broker.send("kit.job", "long", task_id="long", ignore_result=True)
    for _ in range(DEPLOYMENTS):
        dying = broker.scripts()
        (held,) = wait_until(lambda dying=dying: dying.claim(lease_ms=1), "the job is back", IN_TIME_S)
        assert (held.job.tries, held.job.suspect) == (0, False)
        broker.client.set(LEAVING.of("", dying.leases.process), "", ex=60)
    assert broker.scripts().dead() == []


def test_who_was_not_told_is_blamed(broker: Broker) -> None:
    """A job that is there for seven deaths of workers, which nobody had told to stop, is a dead letter."""
    broker.send("kit.job", "killer", task_id="killer", ignore_result=True)
    for _ in range(2 + MAX_DEATHS):
        assert broker.scripts().dead() == []
        wait_until(lambda: broker.scripts().claim(lease_ms=1), "the job is back", IN_TIME_S)
    wait_until(lambda: broker.scripts().claim(lease_ms=1) or broker.scripts().dead(), "its end", IN_TIME_S)
    assert broker.scripts().dead() == ["killer"]


@pytest.mark.parametrize("pool", ["threads", pytest.param("prefork", marks=slow)])
def test_what_ends_after_sigterm_is_done(broker: Broker, pool: str) -> None:
    """A worker that is killed while its last job still runs has done the others: only that one is done again."""
    worker = broker.worker(slots=2, conf=conf_of(pool))
    for name in ("ends", "stays"):
        broker.send("kit.gated", name, name, task_id=name, ignore_result=True)
    broker.event_log.wait_for("start", ["ends", "stays"], IN_TIME_S)
    worker.send(signal.SIGTERM)
    wait_until(lambda: broker.client.keys("lanes:leaving:*"), "it says that it stops", IN_TIME_S)
    broker.event_log.open_gate("ends")
    wait_until(lambda: broker.in_flight() == 1, "it is acknowledged", IN_TIME_S)
    worker.kill()
    assert broker.scripts().names(lease_ms=1) == ["stays"]


@slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_deployment_that_kills_buries_nobody(broker: Broker, pool: str) -> None:
    """Workers that are told to stop and killed half a second later, again and again: their job is done in the end."""
    broker.send("kit.gated", "long", "never", task_id="long", ignore_result=True)
    for n in range(MAX_DEATHS + 3):
        worker = broker.worker(f"w{n}", slots=1, conf=conf_of(pool), app="kit.hasty")
        wait_until(lambda n=n: len(broker.event_log.jobs("start")) > n, "the job runs", IN_TIME_S)
        worker.send(signal.SIGTERM)
        wait_until(lambda n=n: len(broker.client.keys("lanes:leaving:*")) > n, "it says that it stops", IN_TIME_S)
        worker.kill()
    broker.event_log.open_gate("never")
    broker.worker("last", slots=1, conf=conf_of(pool), app="kit.hasty")
    broker.event_log.wait_for("end", ["long"], IN_TIME_S)
    assert broker.scripts().dead() == []


@slow
@pytest.mark.parametrize("pool", ["threads", "prefork"])
@pytest.mark.parametrize("how", ["SIGQUIT", "REMAP_SIGTERM", "Ctrl-C"])
def test_a_soft_shutdown_finishes_what_is_short(broker: Broker, pool: str, how: str) -> None:
    """Celery's `worker_soft_shutdown_timeout`: jobs that end within it are done once, the others are back in front."""
    env = {"REMAP_SIGTERM": "SIGQUIT"} if how == "REMAP_SIGTERM" else {}
    worker = broker.worker(slots=3, conf=conf_of(pool, worker_soft_shutdown_timeout=4.0), env=env)
    broker.send("kit.job", "short", 2.0, task_id="short", ignore_result=True)
    jobs = flight(broker)
    broker.event_log.wait_for("start", ["short"], IN_TIME_S)
    if how == "Ctrl-C":
        worker.send(signal.SIGINT)
        time.sleep(0.5)
    number = {"SIGQUIT": signal.SIGQUIT, "REMAP_SIGTERM": signal.SIGTERM, "Ctrl-C": signal.SIGINT}[how]
    worker.stop(number, IN_TIME_S)
    assert broker.event_log.counts("end")["short"] == 1
    left = untouched(broker, 10)
    assert left[:2] == jobs
    assert set(left[2:]) | set(broker.event_log.jobs("end")) == {"short", *REST}


@slow
def test_a_soft_shutdown_ends_with_its_last_job(broker: Broker) -> None:
    """Threads are waited for as long as they take; with `worker_enable_soft_shutdown_on_idle` to its end."""
    for on_idle, least, most in ((False, 0.0, 20.0), (True, 3.0, 60.0)):
        conf = {"worker_soft_shutdown_timeout": 40.0 - 37 * on_idle, "worker_enable_soft_shutdown_on_idle": on_idle}
        worker = broker.worker(f"w{int(on_idle)}", slots=1, conf=conf)
        begun = time.monotonic()
        assert worker.stop(signal.SIGQUIT, 60.0) == 0
        assert least <= time.monotonic() - begun < most


@slow
@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_a_mixed_worker_finishes_what_is_not_ours(broker: Broker, pool: str) -> None:
    """A second SIGTERM gives back the lanes' jobs at once; a project's own go on to their ends, as in stock Celery."""
    worker = broker.worker(slots=2, conf=conf_of(pool), queues="own,batch")
    for name, queue in (("mine", "own"), ("flight", "batch")):
        broker.send("kit.gated", name, name, queue=queue, task_id=name, ignore_result=True)
    broker.event_log.wait_for("start", ["mine", "flight"], IN_TIME_S)
    worker.send(signal.SIGTERM)
    time.sleep(ANOTHER)
    worker.send(signal.SIGTERM)
    wait_until(lambda: broker.scripts().names(queues=("batch",)) == ["flight"], "the lane's job is back", IN_TIME_S)
    assert worker.process.poll() is None
    broker.event_log.open_gate("mine")
    assert worker.process.wait(IN_TIME_S) == 0
    assert broker.event_log.jobs("end") == ["mine"]


@slow
@pytest.mark.parametrize("task", ["kit.gated", "kit.nesting"])
def test_a_signal_to_all_processes_ends_no_job(broker: Broker, task: str) -> None:
    """systemd tells a pool's processes, too: they finish their jobs, since their worker does; another within or not."""
    worker = broker.worker(slots=2, conf=conf_of("prefork"))
    jobs = flight(broker, task=task)
    os.killpg(worker.process.pid, signal.SIGTERM)
    time.sleep(ANOTHER)
    broker.event_log.open_gate("flight")
    assert worker.process.wait(IN_TIME_S) == 0
    assert sorted(broker.event_log.jobs("end")) == jobs == sorted(broker.event_log.jobs("start"))
    assert untouched(broker, 10) == REST
