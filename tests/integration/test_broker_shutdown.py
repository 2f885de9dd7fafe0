from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest
from kit.broker import Broker
from kit.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IN_TIME_S = 30.0
SLOTS = 4
PREFORK = {"worker_pool": "prefork"}
POOLS = pytest.mark.parametrize(
    "conf", [pytest.param({}, id="threads"), pytest.param(PREFORK, id="prefork", marks=pytest.mark.slow)]
)


@pytest.fixture
def broker(tmp_path: Path, valkey: Any) -> Iterator[Broker]:
    """An empty broker."""
    with Broker(tmp_path, valkey.url(12)) as broker:
        yield broker


def flight(broker: Broker) -> list[str]:
    """Have all slots busy, with more jobs behind."""
    jobs = [f"flight-{n}" for n in range(SLOTS)]
    for job in jobs:
        broker.send("kit.gated", job, "flight", task_id=job, ignore_result=True)
    for n in range(20):
        broker.send("kit.job", f"rest-{n}", task_id=f"rest-{n}", ignore_result=True)
    broker.event_log.wait_for("start", jobs, IN_TIME_S)
    return jobs


@POOLS
def test_sigterm_finishes_what_is_under_way(broker: Broker, conf: dict[str, Any]) -> None:
    """After SIGTERM running jobs finish once, the rest is in its lane in its order, and the exit code is 0."""
    worker = broker.worker(slots=SLOTS, conf=conf)
    jobs = flight(broker)
    worker.send(signal.SIGTERM)
    wait_until(lambda: "shutdown" in worker.output(), "the worker stops claiming", IN_TIME_S)
    broker.send("kit.job", "late", task_id="late", ignore_result=True)
    broker.event_log.open_gate("flight")
    assert worker.process.wait(IN_TIME_S) == 0
    assert sorted(broker.event_log.jobs("end")) == jobs == sorted(set(broker.event_log.jobs("start")))
    assert broker.in_flight() == 0
    assert broker.scripts().names(100) == [*(f"rest-{n}" for n in range(20)), "late"]


def test_sigterm_of_an_idle_worker(broker: Broker) -> None:
    """A worker with nothing to do ends at once with exit code 0 and leaves no claim behind."""
    worker = broker.worker(slots=SLOTS)
    assert worker.stop(signal.SIGTERM, IN_TIME_S) == 0
    broker.send("kit.job", "after", task_id="after", ignore_result=True)
    assert broker.in_flight() == 0
    assert broker.scripts().names() == ["after"]


@POOLS
def test_sigterm_under_load_loses_nothing(broker: Broker, conf: dict[str, Any]) -> None:
    """A worker stopped in the middle of quick jobs has done each of them or left it in its lane, in order; never both.

    But for processes: when their pool stops, Celery forgets what its children have finished and not yet told, so a few
    of those jobs are done and left as well, and will be done twice. Threads have no such gap.
    """
    worker = broker.worker(slots=SLOTS, conf=conf)
    names = [f"quick-{n:03}" for n in range(300)]
    with broker.app.producer_or_acquire() as producer, producer.batch():
        for name in names:
            broker.send("kit.job", name, 0.01, task_id=name, producer=producer, ignore_result=True)
    broker.event_log.wait_for("start", names[:50], IN_TIME_S)
    assert worker.stop(signal.SIGTERM, IN_TIME_S) == 0
    done, left = broker.event_log.counts("end"), broker.scripts().names(1_000)
    assert sorted({*done, *left}) == names
    assert len(done) + len(left) - len(names) <= (2 * SLOTS if conf.get("worker_pool") == "prefork" else 0)
    assert set(done.values()) == {1}
    assert left == sorted(left)


@POOLS
def test_sigquit_loses_nothing(broker: Broker, conf: dict[str, Any]) -> None:
    """After SIGQUIT every job that was under way is back in front of its lane, or was finished."""
    worker = broker.worker(slots=SLOTS, conf=conf)
    jobs = flight(broker)
    worker.send(signal.SIGQUIT)
    wait_until(lambda: "shutdown" in worker.output().lower(), "the worker stops", IN_TIME_S)
    try:
        worker.process.wait(3)  # processes are killed at once, threads are waited for
    except Exception:  # noqa: BLE001 - it waits for its threads
        broker.event_log.open_gate("flight")
        worker.process.wait(IN_TIME_S)
    scripts = broker.scripts()
    done = set(broker.event_log.jobs("end"))
    back = wait_until(lambda: scripts.names(100, lease_ms=1), "what was under way", IN_TIME_S)
    rest = [f"rest-{n}" for n in range(20)]
    assert sorted({*back, *done}) == sorted([*jobs, *rest])
    assert [name for name in back if name in rest] == rest
