import json
import os
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from celery import chain, chord, group
from kit import records
from kit.broker import Broker
from kit.client_rig import params
from kit.waiting import wait_until

from celery_app.broker.packet import LARGE, MAX_MESSAGE_BYTES
from celery_app.client import Client
from celery_app.errors import InvalidItem, JobTooLarge, LaneFull
from tasks import LaneTask

TESTS = Path(__file__).parents[1]
PUBLISHERS, JOBS_EACH, CAPACITY = 8, 625, 1_000
IN_TIME_S = 60.0

#: What tens of megabytes need on a busy machine: a reply that may take its time, and no second sending.
LONG_REPLIES = {"socket_timeout": IN_TIME_S}
ONCE = {"max_retries": 0}

LOOK_EVERY_S = 0.002


def returned(value: Any) -> Any:
    """Return the argument; the body of a task that never runs."""
    return value


@pytest.fixture
def broker(tmp_path, broker_url):
    """An empty broker to publish to."""
    with Broker(tmp_path, broker_url) as broker:
        yield broker


@pytest.fixture
def narrow(broker):
    """An application whose lanes have room for three, and whose publishers wait a twentieth of a second."""
    app = broker.make_app(capacity=3, submit_wait=0.05)
    app.task(base=LaneTask, name="kit.later")(returned)
    return app


def publishers(broker: Broker) -> list[subprocess.Popen[str]]:
    """Start publishing processes that wait for the signal."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]),
        "CELERY_BROKER_URL": broker.broker_url,
        "LANES_NORMAL_CAPACITY": str(CAPACITY),
        "LANES_NORMAL_SUBMIT_WAIT": "0.001",
    }
    command = [sys.executable, "-m", "kit.publisher", "normal", str(JOBS_EACH)]
    return [
        subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(PUBLISHERS)
    ]


@pytest.mark.parametrize("many", [False, True])
def test_a_large_text_is_sent_once_however_long_its_lane_is_full(broker, narrow, many):
    """Its publisher asks for room again and again, with the facts alone; a job that is refused leaves nothing."""
    for _ in range(3):
        narrow.tasks["kit.later"].apply_async(("x",), queue="batch")
    call, client = params("x" * 2 * LARGE), Client(narrow)
    send = partial(client.submit_many, [call]) if many else partial(client.submit, "batch", **call)
    broker.client.config_resetstat()
    with pytest.raises(LaneFull):
        send(wait=0.3)
    commands = broker.client.info("commandstats")
    assert commands["cmdstat_evalsha"]["calls"] > 3
    assert commands["cmdstat_set"]["calls"] == 1
    assert broker.client.keys("lanes:upload:*") == []


@pytest.mark.slow
def test_racing_publishers_never_overfill_a_lane(broker):
    """Eight processes put 5,000 jobs into a lane of 1,000: never 1,001; 1,000 are placed and 4,000 refused."""
    started = publishers(broker)
    scripts, most, over = broker.scripts(), [0], threading.Event()

    def watch() -> None:
        while not over.is_set():
            most.append(scripts.places("normal"))
            over.wait(LOOK_EVERY_S)

    watcher = threading.Thread(target=watch)
    try:
        for process in started:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
        watcher.start()
        for process in started:
            assert process.stdin
            process.stdin.write("go\n")
            process.stdin.flush()
        reports = [json.loads(process.communicate(timeout=IN_TIME_S)[0]) for process in started]
    finally:
        over.set()
        for process in started:
            process.kill()
            process.communicate()
    watcher.join(IN_TIME_S)
    assert max(most) == scripts.places("normal") == CAPACITY
    assert sum(report["placed"] for report in reports) == CAPACITY
    assert sum(report["refused"] for report in reports) == PUBLISHERS * JOBS_EACH - CAPACITY


def test_a_full_lane_says_so_and_nothing_is_written(broker, narrow):
    """The fourth job into a lane of three raises lane, depth and capacity after the patience, and leaves no trace."""
    for n in range(3):
        narrow.send_task("kit.job", (n,), queue="critical", ignore_result=True)
    before = {key: broker.client.dump(key) for key in broker.client.keys("*")}
    start = time.monotonic()
    with pytest.raises(LaneFull, match="critical is full: 3 jobs queued, capacity 3") as caught:
        narrow.send_task("kit.job", (3,), queue="critical", ignore_result=True)
    assert time.monotonic() - start >= 0.05
    assert (caught.value.lane, caught.value.depth, caught.value.capacity) == ("critical", 3, 3)
    assert {key: broker.client.dump(key) for key in broker.client.keys("*")} == before


def test_priorities_share_their_lanes_places(broker, narrow):
    """Jobs of another priority count against the same capacity, jobs of another lane do not."""
    assert broker
    for priority in (0, 3, 9):
        narrow.send_task("kit.job", (priority,), queue="normal", priority=priority, ignore_result=True)
    with pytest.raises(LaneFull):
        narrow.send_task("kit.job", (1,), queue="normal", priority=6, ignore_result=True)
    narrow.send_task("kit.job", (1,), queue="batch", ignore_result=True)


def test_a_publisher_waits_for_room(broker):
    """A publisher whose lane is full gets in as soon as a worker claims a job, well before its patience ends."""
    app = broker.make_app(capacity=1, submit_wait=IN_TIME_S)
    app.send_task("kit.job", (0,), queue="critical", ignore_result=True)
    sent = threading.Thread(target=lambda: app.send_task("kit.job", (1,), queue="critical", ignore_result=True))
    sent.start()
    sent.join(0.1)
    assert sent.is_alive()
    assert len(broker.scripts().claim()) == 1
    sent.join(IN_TIME_S / 2)
    assert not sent.is_alive()
    assert broker.scripts().places("critical") == 1


def test_returns_do_not_need_room(broker, narrow):
    """A job comes back to a full lane at once, and the lane then refuses publishers until it is below its capacity."""
    scripts = broker.scripts()
    for n in range(2):
        narrow.send_task("kit.job", (n,), queue="batch", ignore_result=True)
    held = scripts.claim(2)
    for n in range(3):
        narrow.send_task("kit.job", (n,), queue="batch", ignore_result=True)
    for job in held:
        assert scripts.requeue(job) == 1
    assert scripts.places("batch") == 5
    with pytest.raises(LaneFull):
        narrow.send_task("kit.job", (9,), queue="batch", ignore_result=True)


@pytest.mark.parametrize(
    "send",
    [
        lambda app, _: app.tasks["kit.full"].apply_async((1,), queue="critical"),
        lambda app, _: app.send_task("kit.echo", (1,), queue="critical"),
        lambda _, s: s.apply_async(),
        lambda app, s: group([s, s], app=app).apply_async(),
        lambda app, s: chain([s, s], app=app).apply_async(),
        lambda app, s: chord(group([s, s], app=app), s, app=app).apply_async(),
    ],
    ids=["apply_async", "send_task", "signature", "group", "chain", "chord"],
)
def test_every_way_of_sending_hears_of_a_full_lane(broker, narrow, send):
    """apply_async, send_task, signatures, groups, chains and chords all raise LaneFull."""
    narrow.task(name="kit.full")(returned)
    for n in range(3):
        narrow.send_task("kit.job", (n,), queue="critical", ignore_result=True)
    with pytest.raises(LaneFull):
        send(narrow, narrow.signature("kit.echo", (1,), queue="critical"))
    assert broker.scripts().places("critical") == 3


def test_a_publish_batch_stops_at_a_full_lane(broker, narrow):
    """A batch of five into a lane of three raises LaneFull with the first three in their places."""

    def publish() -> None:
        with narrow.producer_or_acquire() as producer, producer.batch():
            for n in range(5):
                narrow.send_task("kit.job", (n,), task_id=f"j{n}", queue="batch", producer=producer, ignore_result=True)

    with pytest.raises(LaneFull):
        publish()
    assert broker.scripts().names(100) == ["j0", "j1", "j2"]


def test_a_publish_batch_waits_for_room(broker):
    """A batch larger than its lane goes on as workers take jobs out, in order and without a double."""
    app, names = broker.make_app(capacity=3, submit_wait=IN_TIME_S), []

    def publish() -> None:
        with app.producer_or_acquire() as producer, producer.batch():
            for n in range(10):
                app.send_task("kit.job", (n,), task_id=f"j{n}", queue="batch", producer=producer, ignore_result=True)

    publishing = threading.Thread(target=publish)
    publishing.start()
    wait_until(lambda: names.extend(broker.scripts().names(1)) or len(names) == 10, "ten jobs came through", IN_TIME_S)
    publishing.join(IN_TIME_S)
    assert names == [f"j{n}" for n in range(10)]
    assert broker.scripts().names(100) == []


def test_a_job_with_a_countdown_waits_in_the_broker(broker, narrow):
    """A countdown job is neither in its lane nor claimable before its time, and then it is claimed."""
    narrow.send_task("kit.job", (1,), task_id="later", queue="critical", countdown=1, ignore_result=True)
    before = time.monotonic()
    scripts = broker.scripts()
    assert scripts.places("critical") == 0
    assert wait_until(scripts.names, "it is due", IN_TIME_S) == ["later"]
    assert time.monotonic() - before > 0.5


def scheduled(broker: Broker, lane: str) -> int:
    """Return how many jobs of a lane wait for a time, as its capacity counts them; exactly those that do."""
    counted = int(broker.client.hget("lanes:counts", f"{lane}:scheduled") or 0)
    waiting = [records.facts(broker.client, job_id)["lane"] for job_id in records.ids_in(broker.client, "scheduled")]
    assert counted == waiting.count(lane)
    return counted


def test_scheduled_jobs_need_room(broker, narrow):
    """A lane of three takes three jobs in all, queued or with a countdown, one by one or many at once."""
    for n, options in enumerate([{"countdown": 60}, {}, {"countdown": 60}]):
        narrow.send_task("kit.job", (n,), queue="batch", ignore_result=True, **options)
    for options in ({"countdown": 60}, {}):
        with pytest.raises(LaneFull):
            narrow.send_task("kit.job", (9,), queue="batch", ignore_result=True, **options)
    with pytest.raises(LaneFull) as caught:
        Client(narrow).submit_many([{"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]}])
    assert caught.value.depth == 3
    assert scheduled(broker, "batch") == 2
    narrow.send_task("kit.job", (9,), queue="normal", countdown=60, ignore_result=True)  # another lane has room


def test_scheduled_jobs_are_counted_wherever_they_go(broker, narrow):
    """Due, returned to wait, dead-lettered or purged: the count of those that wait stays exact, and ends at none."""
    scripts = broker.scripts()
    for n in range(3):
        narrow.send_task("kit.job", (n,), queue="batch", countdown=0.2, ignore_result=True)
    held: list[Any] = []
    wait_until(lambda: held.extend(scripts.claim(3)) or len(held) == 3, "all are due", IN_TIME_S)
    assert scheduled(broker, "batch") == 0
    narrow.send_task("kit.job", (3,), queue="batch", priority=0, countdown=60, ignore_result=True)
    for job in held[:2]:
        assert scripts.requeue(job, delay_ms=60_000) == 1  # a running job's return is never refused
    assert scheduled(broker, "batch") == 3
    with pytest.raises(LaneFull):
        narrow.send_task("kit.job", (4,), queue="batch", ignore_result=True)
    assert scripts.requeue(held[2], delay_ms=60_000) == 1
    assert scheduled(broker, "batch") == 4
    with narrow.connection_for_write() as connection:
        assert connection.default_channel.queue_purge("batch") == 4
    assert scheduled(broker, "batch") == 0
    assert not broker.client.exists("lanes:scheduled", records.JOBS, "lanes:texts")
    narrow.send_task("kit.job", (5,), queue="batch", ignore_result=True)
    (job,) = scripts.claim()
    assert scripts.dead_letter(job, "a test's reason") == 1
    assert scheduled(broker, "batch") == 0


def test_jobs_deleted_by_hand_leave_room(broker, narrow):
    """Whoever deletes the keys of the waiting jobs has emptied the lane, though their number stayed."""
    for n in range(3):
        narrow.send_task("kit.job", (n,), queue="batch", countdown=60, ignore_result=True)
    broker.client.delete("lanes:scheduled", records.JOBS, "lanes:texts")
    narrow.send_task("kit.job", (3,), queue="batch", countdown=60, ignore_result=True)
    assert scheduled(broker, "batch") == 1


def test_a_job_that_no_worker_would_take_is_refused(broker):
    """Whoever sends more than the broker takes is told so, and nothing is queued."""
    app = broker.make_app(LONG_REPLIES)
    with pytest.raises(JobTooLarge):
        app.send_task("kit.job", ("x" * MAX_MESSAGE_BYTES,), queue="batch", ignore_result=True, retry_policy=ONCE)
    assert broker.scripts().names(1) == []


def test_an_item_that_no_worker_would_take_is_named(broker):
    """Its index is in the error, or, where bad items are left out, in the batch."""
    good, large = (
        {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": text}]}
        for text in ("x", "x" * MAX_MESSAGE_BYTES)
    )
    client = Client(broker.make_app(LONG_REPLIES))
    batch = client.submit_many([good, large], on_invalid="skip")
    assert [each.index for each in batch.invalid] == [1]
    with pytest.raises(InvalidItem, match="Item 1: params: makes a job of"):
        client.submit_many(iter([good, large]))
