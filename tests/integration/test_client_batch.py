"""Ten thousand documents into the batch lane without thinking."""

import base64
import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from kit.client_rig import IN_TIME_S, fresh, params, rig, web_app
from kit.records import facts, queued
from kit.script_client import ScriptClient
from kit.waiting import wait_until

from celery_app import LANES, create_app
from celery_app.broker.packet import Packet
from celery_app.budget.terms import write_terms
from celery_app.client import Batch, Client
from celery_app.connections.redis_client import redis_client
from celery_app.errors import ApiError, Cancelled, InvalidItem, LaneFull, UnknownBatch
from celery_app.scheduler.scripts import PUBLISH_MANY
from celery_app.settings import Settings, settings_of
from tests.conftest import close

#: Celery 5.7 stores a result by a command that redis-py 8 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")


@pytest.fixture(scope="module")
def shared(valkey, tmp_path_factory):
    """One worker for all tests."""
    with rig(valkey, 10, tmp_path_factory.mktemp("worker"), slots=8) as up:
        yield up


@pytest.fixture
def up(shared):
    """The same, fresh for each test."""
    return fresh(shared)


@pytest.fixture
def alone(broker_url):
    """A web app without any worker."""
    app = web_app(broker_url)
    yield app
    close(app)


def items(number: int, **more: Any) -> list[dict[str, Any]]:
    """Return the parameters of so many calls."""
    return [params(f"question {n}.", **more) for n in range(number)]


def texts(app: Any, lane: str) -> list[bytes]:
    """Return the messages in a lane's line, first in first; all of its jobs are of one model."""
    redis = redis_client(app)
    found: Any = [redis.hget("lanes:texts", job_id) for job_id in queued(redis, lane)]
    return list(found)


def messages(app: Any) -> list[dict[str, Any]]:
    """Return the messages in the batch lane, first in first, with their bodies decoded."""
    found = [json.loads(text) for text in texts(app, "batch")]
    for message in found:
        message["body"] = json.loads(base64.b64decode(message["body"]))
    return found


def test_every_item_gets_its_own_result(up):
    """In the order in which they finish, each with its index."""
    batch = up.client.submit_many(items(200))
    results = {result.index: result for result in batch.results(patience=IN_TIME_S)}

    assert sorted(results) == list(range(200))
    for index, result in results.items():
        assert result.message is not None
        assert f"question {index}." in result.message["content"][0]["text"]
    counts = batch.counts()
    assert (counts.queued, counts.done, counts.failed, counts.complete) == (200, 200, 0, True)


def test_a_failed_item_does_not_stop_the_others(up):
    """Its error is its result."""
    batch = up.client.submit_many([params(), params(fault="400"), params()])
    results = {result.index: result for result in batch.results(patience=IN_TIME_S)}

    assert isinstance(results[1].error, ApiError)
    assert results[0].message
    assert results[2].message
    assert batch.counts().failed == 1


def test_a_batch_survives_the_process_that_submitted_it(up):
    """Its id is enough."""
    code = """
import sys
from celery_app import submit_many
item = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}
sys.stdout.write(submit_many([item] * 20).id)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=60, capture_output=True, env={**os.environ, **up.env}
    )
    batch = Batch.load(done.stdout.decode(), up.app)

    assert len(list(batch.results(patience=IN_TIME_S))) == 20
    assert len(list(batch.results(patience=IN_TIME_S))) == 20


def test_a_batch_is_cancelled_as_a_whole(up):
    """What runs is stopped, what is queued never runs, and the batch comes to its end."""
    up.api.control(latency=20.0)
    batch = up.client.submit_many(items(50))
    wait_until(lambda: up.api.summary()["in_flight"] == 8, "all slots are busy")
    batch.cancel()
    results = list(batch.results(patience=IN_TIME_S))

    assert all(isinstance(result.error, Cancelled) for result in results)
    assert batch.counts().cancelled == 50
    assert up.api.summary()["total"] == 8


def test_an_unknown_batch_is_named(alone):
    """Forgotten, or never there."""
    with pytest.raises(UnknownBatch, match="no-such"):
        Batch.load("no-such", alone)


def test_its_messages_are_those_of_apply_async(alone):
    """Field by field, in the same order, and so is what the scheduler knows of them; but for ids and times."""
    client = Client(alone)
    item = params('"quoted" \\ Grüße 🐘 \u2028', system="x", temperature=0.1)
    batch = client.submit_many([item])
    alone.tasks["tasks.create_message"].apply_async(
        kwargs=item, queue="batch", task_id=f"{batch.id}-0", headers={"lanes_batch": batch.id}
    )
    ours, celerys = messages(alone)

    for message in (ours, celerys):
        message["properties"]["delivery_tag"] = "tag"
        assert abs(message["headers"].pop("submitted_at") - time.time()) < 60
    assert json.dumps(ours) == json.dumps(celerys)
    known, of_celerys = (facts(redis_client(alone), job_id) for job_id in queued(redis_client(alone), "batch"))
    assert of_celerys.pop("number") - known.pop("number") == 1
    assert abs(of_celerys.pop("submitted") - known.pop("submitted")) < 60_000
    assert known == of_celerys
    assert (known["model"], known["requests"], known["characters"] > 10) == ("m", 1, True)


def test_jobs_of_another_lane_have_their_deadline(alone):
    """Counted from each job's own submission."""
    Client(alone).submit_many([params()], lane="normal")
    (text,) = texts(alone, "normal")
    headers = json.loads(text)["headers"]

    assert headers["deadline_at"] - headers["submitted_at"] == pytest.approx(300)


def test_compressed_messages_are_compressed(broker_url):
    """As the project's configuration says."""
    app = web_app(broker_url)
    app.conf.task_compression = "gzip"
    Client(app).submit_many([params("compress me")])
    (text,) = texts(app, "batch")
    message = json.loads(text)

    assert message["headers"]["compression"] == "application/x-gzip"
    import zlib

    assert b"compress me" in zlib.decompress(base64.b64decode(message["body"]), wbits=47)
    close(app)


@pytest.mark.parametrize("bad", [params(max_tokens="x"), "a string", None, {}, {"model": "m"}])
def test_a_bad_item_in_a_list_stops_it_before_anything_is_queued(alone, bad):
    """And is named by its index."""
    with pytest.raises(InvalidItem, match="Item 700: ") as caught:
        Client(alone).submit_many([*items(700), bad, *items(10)])

    assert caught.value.index == 700
    assert redis_client(alone).keys("*") == []


def test_a_bad_item_in_a_stream_of_items_leaves_those_before_it(alone):
    """They may be queued already; the error says where to find them."""
    with pytest.raises(InvalidItem, match="Item 700: ") as caught:
        Client(alone).submit_many(iter([*items(700), None]))

    batch = Batch.load(caught.value.batch_id, alone)  # type: ignore[attr-defined]
    assert batch.counts().queued == len(messages(alone)) <= 700
    assert not batch.counts().submitted


def test_bad_items_are_left_out_if_asked(alone):
    """The others keep their own indices."""
    batch = Client(alone).submit_many([params(), None, params(), {}], on_invalid="skip")

    assert [error.index for error in batch.invalid] == [1, 3]
    assert [message["headers"]["id"] for message in messages(alone)] == [f"{batch.id}-0", f"{batch.id}-2"]
    assert batch.counts().invalid == 2


def test_an_empty_batch_is_complete(alone):
    """Nothing to do is done."""
    batch = Client(alone).submit_many([])

    assert batch.counts().complete
    assert list(batch.results()) == []


def test_a_full_lane_is_waited_for(broker_url):
    """Exactly as many as there is room for are in it, and each comes once, in order."""
    app = limited(broker_url, capacity=100, submit_wait=5.0)
    scripts, seen = ScriptClient(redis_client(app)), list[int]()
    write_terms(scripts.client, "", settings_of(app), [("batch", "m")])
    done = threading.Event()

    def consume() -> None:
        while not (done.is_set() and scripts.places("batch") == 0):
            assert scripts.places("batch") <= 100
            taken = scripts.claim(7)
            seen.extend(int(held.name.rpartition("-")[2]) for held in taken)
            for held in taken:
                scripts.ack(held)
            time.sleep(0.001)

    consumer = threading.Thread(target=consume)
    consumer.start()
    reports: list[int] = []
    batch = Client(app).submit_many(items(1_000), progress=lambda batch: reports.append(batch.counts().queued))
    done.set()
    consumer.join(IN_TIME_S)

    assert seen == list(range(1_000))
    assert reports == sorted(reports)
    assert reports[-1] == batch.counts().queued == 1_000
    close(app)


def test_a_lane_that_stays_full_is_said_to_be_full(broker_url):
    """What is in it stays in it, and can be found."""
    app = limited(broker_url, capacity=30, submit_wait=0.3)
    with pytest.raises(LaneFull) as caught:
        Client(app).submit_many(items(100))

    assert Batch.load(caught.value.batch_id, app).counts().queued == len(messages(app)) == 30  # type: ignore[attr-defined]
    close(app)


def limited(broker_url: str, **changes: Any) -> Any:
    """Return a web app with a smaller batch lane."""
    lanes = tuple(dataclasses.replace(lane, **changes) for lane in LANES)
    return create_app(Settings(broker_url=broker_url, result_backend=broker_url, lanes=lanes))


def test_putting_again_what_was_put_adds_nothing(alone):
    """An answer that was lost on its way may be asked for again."""
    redis = redis_client(alone)

    def put(first: int, *jobs: str) -> list[Any]:
        packets = [Packet(job, b"{}", 6, {"id": job, "task": "t"}, "", 0.0) for job in jobs]
        arguments = (part for packet in packets for part in packet.arguments())
        return PUBLISH_MANY.run(redis, (), ("", "batch", 5, "lanes:batch:b", 60, first, *arguments))

    assert put(0, "a", "b", "c") == [3, 0, 5, b""]
    assert put(0, "a", "b", "c") == [3, 3, 5, b""]
    assert put(3, "d", "e", "f") == [2, 3, 5, b""]
    assert put(3, "d", "e", "f") == [2, 5, 5, b""]
    assert queued(redis, "batch") == ["a", "b", "c", "d", "e"]
    assert redis.hget("lanes:batch:b", "queued") == b"5"


def test_putting_again_tells_again_what_was_left_out(alone):
    """A job that was left out because there is one of its name would be taken for queued, and waited for in vain."""
    redis = redis_client(alone)
    first = Client(alone).submit("batch", unique="1", **params())

    def put(*names: str) -> list[Any]:
        headers = [{"id": f"b-{at}", "task": "tasks.create_message", "lanes_unique": n} for at, n in enumerate(names)]
        packets = [Packet(each["id"], b"{}", 6, each, "", 0.0) for each in headers]
        arguments = (part for packet in packets for part in packet.arguments())
        return PUBLISH_MANY.run(redis, (), ("", "batch", 9, "lanes:batch:b", 60, 0, *arguments))

    assert put("0", "1", "0") == [3, 1, 9, b"", 1, first.id.encode(), 2, b"b-0"]
    assert put("0", "1", "0") == [3, 2, 9, b"", 1, first.id.encode(), 2, b"b-0"]
    assert redis.hget("lanes:batch:b", "queued") == b"1"


def test_a_job_is_counted_once_however_often_it_is_done(alone):
    """A lease that expired has a job done twice."""
    from tasks.outcome import TALLY

    redis = redis_client(alone)
    replies = [
        TALLY.run(redis, ("b", "b:seen", "b:ended", "b:failed"), (7, outcome, 60))
        for outcome in ("done", "failed", "done")
    ]

    assert replies == [1, 0, 0]
    assert redis.hgetall("b") == {b"done": b"1"}
