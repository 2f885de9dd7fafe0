"""A worker that is told to stop, or killed, while its main thread is in the middle of something."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from kit.broker import Broker
from kit.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Valkey

IN_TIME_S = 30.0

#: Seconds of a soft shutdown that nobody has to wait for: none of the jobs takes as long.
SOFT = 20.0


@pytest.fixture
def broker(tmp_path: Path, valkey: Valkey) -> Iterator[Broker]:
    """An empty broker."""
    with Broker(tmp_path, valkey.url(12)) as broker:
        yield broker


def test_a_busy_main_thread_holds_up_no_end(broker: Broker) -> None:
    """A worker that is killed while its main thread is held up has acknowledged what was done in its slots."""
    worker = broker.worker(slots=2, app="kit.busy_main")
    broker.send("kit.gated", "ends", "ends", task_id="ends", ignore_result=True)
    broker.event_log.wait_for("start", ["ends"], IN_TIME_S)
    broker.send("kit.job", "held", task_id="held", ignore_result=True)
    broker.event_log.wait_for("held", ["held"], IN_TIME_S)
    broker.event_log.open_gate("ends")
    wait_until(lambda: broker.in_flight() == 1, "it is acknowledged", IN_TIME_S)
    worker.kill()
    assert broker.scripts().names(lease_ms=1) == ["held"]


def test_what_arrives_with_the_signal_is_back(broker: Broker) -> None:
    """A job on its way to a slot whose worker's pool is being closed goes back to its place, and is no dead letter."""
    worker = broker.worker(slots=2, app="kit.mid_line", loglevel="INFO")
    broker.send("kit.job", "told", task_id="told", ignore_result=True)
    worker.process.wait(IN_TIME_S)
    assert broker.scripts().dead() == []
    (held,) = broker.scripts().claim()
    assert (held.name, held.job.tries, held.job.suspect) == ("told", 0, False)


def test_a_soft_shutdown_waits_with_no_lock_held(broker: Broker) -> None:
    """A worker that is told to stop while its main thread writes a line of its log finishes what is short."""
    worker = broker.worker(slots=2, app="kit.mid_line", conf={"worker_soft_shutdown_timeout": SOFT}, loglevel="INFO")
    begun = time.monotonic()
    broker.send("kit.job", "short", 2.0, task_id="short", ignore_result=True)
    broker.event_log.wait_for("start", ["short"], IN_TIME_S)
    broker.send("kit.job", "told", task_id="told", ignore_result=True)
    worker.process.wait(2 * SOFT)
    assert broker.event_log.counts("end") == {"short": 1, "told": 1}
    assert broker.scripts().names(10) == []
    assert time.monotonic() - begun < SOFT
