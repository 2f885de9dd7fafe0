"""Every job ends, and whoever waits for it hears how: whatever the result backend, a revocation or Redis does to it."""

import random
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from celery import chain, chord, group
from celery.exceptions import ChordError
from killers import KILLER
from kit.client_rig import IN_TIME_S, Rig, fresh, params, rig, web_app
from kit.records import ids_in
from kit.script_client import ScriptClient
from kit.server import Server
from kit.waiting import in_time, wait_until
from kit.worker import worker as worker_process

from celery_app import dead_letters
from celery_app.broker.lease import Leases
from celery_app.client import Client
from celery_app.connections.redis_client import redis_client
from celery_app.errors import Cancelled, DeadlineExceeded, KilledItsWorker
from celery_app.jobs.headers import BATCH_HEADER
from celery_app.metrics.stats import get_queue_stats
from celery_app.scheduler.scripts import DONE_ENDED, TAKE_ENDED
from demo.simulator import Behaviour, running
from tasks import LaneTask, ended
from tasks.ended import work_off
from tests.conftest import close, close_backend

#: Celery 5.7 stores a result by a command that redis-py 8 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

#: Seconds within which the call of a revoked job is closed: 0.5 s, and as much for a busy machine.
CLOSED_IN_TIME = 0.5 + 0.5

#: Seconds within which a dead-lettering is told: one until somebody looks, and what telling takes.
TOLD_IN_TIME = 1.0 + 2.0

#: Ways in which a real server refuses a result for a while, and how each ends.
REFUSALS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "NoPermissionError": (
        lambda redis: redis.execute_command("ACL", "SETUSER", "default", "-setex"),
        lambda redis: redis.execute_command("ACL", "SETUSER", "default", "+setex"),
    ),
    "NOREPLICAS": (
        lambda redis: redis.config_set("min-replicas-to-write", 1),
        lambda redis: redis.config_set("min-replicas-to-write", 0),
    ),
}


@pytest.mark.parametrize("pool", ["threads", "prefork"])
@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_result_that_is_refused_for_a_while_is_stored_then(valkey, tmp_path, refusal, pool):
    """Whatever the backend raises, answers are kept and paid for once, and the slots are free again."""
    refuse, accept = REFUSALS[refusal]
    with valkey.client(14) as redis, Server(tmp_path) as backend, running(Behaviour(latency=0.5)) as api:
        redis.flushdb()
        env = {
            "CELERY_BROKER_URL": valkey.url(14),
            "CELERY_RESULT_BACKEND": backend.url,
            "EZAI_API_KEY": "sk-test",
            "EZAI_BASE_URL": api.url,
        }
        app = web_app(valkey.url(14))
        app.conf.result_backend = backend.url
        client = Client(app)
        with worker_process(tmp_path, "-c", "2", "-P", pool, **env) as started, backend.client() as control:
            refuse(control)
            results = [client.submit("batch", **params()) for _ in range(2)]
            started.wait_until_it_says("results cannot be stored")
            wait_until(lambda: api.summary()["statuses"].get("200") == 2, "both are answered", IN_TIME_S)
            accept(control)

            for result in results:
                wait_until(lambda result=result: result.state == "SUCCESS", "the answer is stored", IN_TIME_S)
            lane = lambda: get_queue_stats(app)["lanes"]["batch"]  # noqa: E731
            wait_until(lambda: lane()["in_flight"] == 0, "nothing is claimed any more", IN_TIME_S)
            after = [client.submit("batch", **params()) for _ in range(2)]
            for result in after:
                wait_until(lambda result=result: result.state == "SUCCESS", "the slots work", IN_TIME_S)
            assert api.summary()["total"] == 4
            slots = 2 if pool == "prefork" else 1
            assert 1 <= started.output().count("results cannot be stored") <= slots
            assert "hello there" not in started.output()
        close(app)


def test_an_acknowledgement_that_is_refused_for_good_holds_up_no_other(tmp_path):
    """Each entry is tried for itself."""
    with Server(tmp_path) as server, server.client() as redis, server.client() as control:
        leases = Leases(redis, "")
        leases.register("bad", "t1")
        control.set("lanes:jobs", "no hash")  # the server refuses both
        leases.requeue("bad", "t1")
        leases.ack("good", "t2")
        assert len(leases._unacked) == 2
        control.delete("lanes:jobs")
        control.hset("lanes:jobs", "bad", "no record")  # it will always refuse the first

        wait_until(lambda: ("good", "t2") not in leases._unacked, "the other is acked", IN_TIME_S)
        assert ("bad", "t1") in leases._unacked
        leases._unacked.clear()
        leases.close()


@pytest.fixture(scope="module")
def shared(valkey, tmp_path_factory):
    """One worker for all tests that need no other."""
    with rig(valkey, 15, tmp_path_factory.mktemp("worker"), slots=4) as up:
        yield up


@pytest.fixture
def up(shared):
    """The same, fresh for each test."""
    return fresh(shared)


def call_of(up: Rig, text: str = "hello there", **options: Any) -> Any:
    """Return the signature of a call."""
    return signature_of(up, params(text), **options)


def signature_of(up: Rig, call: dict[str, Any], **options: Any) -> Any:
    """Return the signature of a call with these parameters."""
    return up.app.signature("tasks.create_message", kwargs=call, immutable=True, queue="critical", **options)


def test_whoever_is_first_decides_between_answer_and_cancellation(up):
    """A cancellation that was said to be one stays one, an answer that was first stays one; states never change."""
    up.api.control(latency=0.05)
    chance = random.Random(7)
    told: list[tuple[Any, bool]] = []

    def one() -> None:
        for _ in range(20):
            result = up.client.submit("critical", **params())
            time.sleep(chance.uniform(0.03, 0.12))
            told.append((result, up.client.cancel(result)))
        close_backend(up.app)  # this thread's own

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * IN_TIME_S)
    assert len(told) == 80
    for result, cancelled in told:
        wait_until(lambda result=result: result.ready(), "an end")
        assert result.state == ("REVOKED" if cancelled else "SUCCESS")
    lanes = lambda: get_queue_stats(up.app)["lanes"]["critical"]["in_flight"]  # noqa: E731
    wait_until(lambda: not lanes(), "all has ended")
    assert [r.state for r, _ in told] == ["REVOKED" if cancelled else "SUCCESS" for _, cancelled in told]
    assert {cancelled for _, cancelled in told} == {True, False}


def test_what_follows_a_cancelled_job_does_not_run(up):
    """Callbacks and the rest of a chain never start; whoever waits for the chain's end is told."""
    up.api.control(latency=20.0)
    steps = chain(call_of(up, "first", link=call_of(up, "callback")), call_of(up, "second"), call_of(up, "third"))
    last = steps.apply_async()
    wait_until(lambda: up.api.summary()["in_flight"] == 1, "the first is at the API")
    assert up.client.cancel(last.parent.parent.id)

    with pytest.raises(Cancelled):
        last.get(timeout=IN_TIME_S)
    # Who knows the last one's id alone: a handle looks at the steps before, too.
    wait_until(lambda: up.app.AsyncResult(last.id).state == "REVOKED", "the last step has ended")
    up.api.control(latency=0.0)
    assert up.client.ask(**params()).type == "message"
    wait_until(lambda: up.api.summary()["total"] == 2, "the cancelled call and the question, and no other")


@pytest.mark.parametrize("queued", [True, False])
def test_a_chord_with_a_cancelled_part_ends(up, queued):
    """Its body fails for whoever waits, whether the part was running or queued."""
    up.api.control(latency=2.0)
    header = group(call_of(up, str(number)) for number in range(6 if queued else 2))
    body = chord(header, up.app.signature("tasks.create_message", kwargs=params("body"), immutable=True)).apply_async()
    wait_until(lambda: up.api.summary()["in_flight"] == (4 if queued else 2), "its parts are at the API")
    assert up.client.cancel(body.parent.results[-1])

    wait_until(lambda: body.state == "FAILURE", "the body has failed")
    assert isinstance(body.result, ChordError)
    with pytest.raises(Cancelled):
        body.get(timeout=IN_TIME_S)


@pytest.mark.parametrize("how", ["running", "queued", "last", "revoked"])
def test_the_errback_of_a_chord_hears_of_a_cancelled_part(up, how):
    """That of its body runs, once, and the body never; whether the part was running, queued, or the last to end."""
    up.api.control(latency=1.0)
    part_id = uuid.uuid4().hex
    parts = [call_of(up, str(number)) for number in range(2 if how == "running" else 6)]
    parts[-1].set(task_id=part_id, **({"countdown": 60} if how == "last" else {}))
    chord(group(parts), call_of(up, "body").on_error(call_of(up, "errback"))).apply_async()
    if how == "last":
        wait_until(lambda: up.api.summary()["statuses"].get("200") == len(parts) - 1, "the others are done")
    else:
        wait_until(lambda: up.api.summary()["in_flight"] == min(len(parts), 4), "its parts are at the API")
    if how == "revoked":
        up.app.control.revoke(part_id)
    else:
        assert up.client.cancel(part_id)
    expected = len(parts) - (how != "running") + 1
    wait_until(lambda: up.api.summary()["total"] >= expected, "the errback has run")
    wait_until(lambda: not get_queue_stats(up.app)["lanes"]["critical"]["in_flight"], "all has ended")
    assert up.api.summary()["total"] == expected


def revoked_by(up: Rig, how: str, result: Any) -> None:
    """Revoke a job in one of the ways that Celery and Flower have."""
    if how == "revoke":
        up.app.control.revoke(result.id)
    elif how == "terminate":
        up.app.control.terminate(result.id)
    else:
        result.revoke(terminate=True)


@pytest.mark.parametrize("how", ["revoke", "terminate", "AsyncResult.revoke(terminate=True)"])
def test_a_running_job_that_is_revoked_is_cancelled(up, how):
    """Its call is closed at once, it is REVOKED, and the worker goes on."""
    up.api.control(latency=20.0)
    result = up.client.submit("critical", **params())
    wait_until(lambda: up.api.summary()["in_flight"] == 1, "the call")
    begun = time.time()
    revoked_by(up, how, result)

    wait_until(lambda: [call for call in up.api.calls() if call["closed_by_client"]], "the call is closed")
    assert up.api.calls()[0]["closed_by_client"] - begun < CLOSED_IN_TIME
    with pytest.raises(Cancelled):
        result.get(timeout=IN_TIME_S)
    assert result.state == "REVOKED"
    up.api.control(latency=0.0)
    assert up.client.ask(**params()).type == "message"


@pytest.mark.parametrize("how", ["revoke", "AsyncResult.revoke(terminate=True)"])
def test_a_batch_with_revoked_jobs_ends(up, how):
    """Queued or running, a revoked job is counted as cancelled; the others are done."""
    up.api.control(latency=2.0)
    batch = up.client.submit_many([params(str(number)) for number in range(8)])
    wait_until(lambda: up.api.summary()["in_flight"] == 4, "half of them run")
    jobs = [up.app.AsyncResult(f"{batch.id}-{index}") for index in (0, 7)]
    for job in jobs:
        revoked_by(up, how, job)

    results = {each.index: each for each in batch.results(patience=IN_TIME_S)}
    assert batch.counts().cancelled == 2
    assert batch.counts().done == 6
    assert {index for index, each in results.items() if isinstance(each.error, Cancelled)} == {0, 7}
    assert up.api.summary()["total"] == 7


def test_who_waits_for_a_revoked_job_hears_so(up):
    """`stream` and `ask` end with the error of a cancellation."""
    up.api.control(tokens_per_second=5, output_tokens=200)
    stream = up.client.stream(**params())
    next(stream)
    revoked_by(up, "revoke", up.app.AsyncResult(stream.task_id))
    assert list(stream)[-1]["error"]["type"] == "Cancelled"

    up.api.control(latency=20.0, tokens_per_second=0.0)
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            up.client.ask(**params("asked"))
        except Cancelled as exc:
            errors.append(exc)
        close_backend(up.app)  # this thread's own

    thread = threading.Thread(target=ask)
    thread.start()
    wait_until(lambda: up.api.summary()["in_flight"] == 1, "the call")
    active = up.app.control.inspect(timeout=2.0).active() or {}
    (job,) = [job for jobs in active.values() for job in jobs]
    revoked_by(up, "revoke", up.app.AsyncResult(job["id"]))
    thread.join(IN_TIME_S)
    assert len(errors) == 1


def test_terminate_kills_no_process_of_a_pool(valkey, tmp_path):
    """On prefork a job in a lane is cancelled likewise, and its process stays."""
    with valkey.client(14) as redis, running(Behaviour(latency=20.0)) as api:
        redis.flushdb()
        env = {"CELERY_BROKER_URL": valkey.url(14), "EZAI_API_KEY": "sk-test", "EZAI_BASE_URL": api.url}
        app = web_app(valkey.url(14))
        client = Client(app)
        with worker_process(tmp_path, "-c", "1", "-P", "prefork", **env) as started:
            result = client.submit("critical", **params())
            wait_until(lambda: api.summary()["in_flight"] == 1, "the call")
            result.revoke(terminate=True)
            with pytest.raises(Cancelled):
                result.get(timeout=IN_TIME_S)
            api.control(latency=0.0)
            assert client.ask(**params()).type == "message"
            assert "WorkerProcess exited" not in started.output()
            assert "Terminated" not in started.output()
        close(app)


@pytest.fixture(scope="module")
def deadly(valkey, tmp_path_factory):
    """A worker on processes, some of whose jobs kill theirs."""
    folder = tmp_path_factory.mktemp("deadly")
    with rig(valkey, 13, folder, slots=3, options=("-P", "prefork"), app="killers") as up:
        yield up


def killer(text: str = "deadly") -> dict[str, Any]:
    """Return the parameters of a call that kills its process."""
    return params(text, metadata={"user_id": KILLER})


def test_a_dead_lettered_job_ends_within_about_a_second(deadly):
    """It has failed, with the reason; its errbacks run; it is told and counted once."""
    deadly.api.clear()
    redis = redis_client(deadly.app)
    before = redis.zcard("lanes:dead"), get_queue_stats(deadly.app)["lanes"]["critical"]["failed"]
    errback = call_of(deadly, "errback")
    result = signature_of(deadly, killer(), link_error=errback).apply_async()
    wait_until(lambda: redis.zcard("lanes:dead") > before[0], "it is dead-lettered")
    dead_lettered = time.monotonic()
    wait_until(result.ready, "it has ended")
    assert time.monotonic() - dead_lettered < in_time(TOLD_IN_TIME)

    with pytest.raises(KilledItsWorker, match="5 times"):
        result.get(timeout=IN_TIME_S)
    wait_until(lambda: deadly.api.summary()["total"] == 1, "its errback has run")
    failed = lambda: get_queue_stats(deadly.app)["lanes"]["critical"]["failed"]  # noqa: E731
    wait_until(lambda: failed() == before[1] + 1, "it is counted")
    wait_until(lambda: not redis.zcard("lanes:ended"), "it is told")
    assert deadly.worker.output().count(f"{result.id}] goes to the dead letters") == 1


@pytest.mark.slow
def test_a_chord_with_a_dead_lettered_part_ends(deadly):
    """Whoever waits for its body hears of it."""
    parts = [call_of(deadly, "one"), signature_of(deadly, killer())]
    body = chord(group(parts), call_of(deadly, "body")).apply_async()
    wait_until(lambda: body.state == "FAILURE", "the body has failed")
    assert isinstance(body.result, ChordError)


@pytest.mark.slow
def test_a_batch_with_a_dead_lettered_job_ends(deadly):
    """The job is counted as failed, with its reason."""
    batch = deadly.client.submit_many([params("one"), killer(), params("two")])
    results = {each.index: each for each in batch.results(patience=IN_TIME_S)}
    assert (batch.counts().done, batch.counts().failed) == (2, 1)
    assert isinstance(results[1].error, KilledItsWorker)


@pytest.mark.slow
def test_who_asks_or_reads_hears_of_a_burial(deadly):
    """`ask` raises the reason, a stream ends with it."""
    with pytest.raises(KilledItsWorker):
        deadly.client.ask(**killer("asked"))
    (event,) = list(deadly.client.stream(**killer("read")))
    assert event["error"]["type"] == "KilledItsWorker"


@pytest.mark.slow
def test_a_burial_that_a_dead_worker_had_taken_is_told_by_another(deadly):
    """What is not finished in time is taken again, and not told twice."""
    redis = redis_client(deadly.app)
    result = signature_of(deadly, killer()).apply_async()
    wait_until(result.ready, "it has ended")
    (job_id,) = [letter.id for letter in dead_letters.find(deadly.app) if letter.task_id == result.id]
    deadly.app.backend.delete(f"celery-task-meta-{result.id}")
    redis.zadd("lanes:ended", {job_id: time.time() * 1000})
    again = deadly.app.AsyncResult(result.id)
    wait_until(lambda: again.state == "FAILURE", "another has ended it")
    wait_until(lambda: not redis.zcard("lanes:ended"), "it is told")
    assert job_id in ids_in(redis, "dead")


def test_a_hook_that_raises_is_called_once(lanes_app):
    """A project's own on_failure may have a defect: the job has ended all the same, and who waits for it is told."""
    called = []

    @lanes_app.task(base=LaneTask, bind=True, name="own.hook")
    def hooked(self: Any) -> None:
        """Never run."""

    def on_failure(self: Any, exc: Exception, task_id: str, *_: Any) -> None:
        called.append((task_id, type(exc)))
        raise KeyError(task_id)

    task = lanes_app.tasks["own.hook"]
    type(task).on_failure = on_failure
    headers = {"deadline_at": time.time(), BATCH_HEADER: "batch"}
    job = task.apply_async(queue="critical", task_id="batch-0", headers=headers)
    scripts, client = ScriptClient(redis_client(lanes_app)), redis_client(lanes_app)
    wait_until(lambda: scripts.claim() == [] and ids_in(client, "ended"), "it has ended", IN_TIME_S)
    for _ in range(2):
        work_off(lanes_app)
        client.zadd("lanes:ended", {"batch-0": 0}, xx=True)  # a minute later
    assert called == [(job.id, DeadlineExceeded)]
    assert (job.state, ids_in(client, "ended"), client.hlen("lanes:jobs")) == ("FAILURE", [], 0)
    assert client.hget("lanes:batch:batch", "failed") == b"1"


@pytest.mark.parametrize("index", ["x", "", "4294967295", "9" * 200])
def test_a_made_up_batch_takes_no_memory(lanes_app, index):
    """A stock producer's header may name a batch for an id that is none of a batch's: its job ends like any other."""
    headers = {"deadline_at": time.time(), BATCH_HEADER: "b"}
    lanes_app.send_task("some.task", queue="critical", task_id=f"b-{index}", headers=headers)
    scripts, client = ScriptClient(redis_client(lanes_app)), redis_client(lanes_app)
    wait_until(lambda: scripts.claim() == [] and ids_in(client, "ended"), "it has ended", IN_TIME_S)
    work_off(lanes_app)
    assert lanes_app.AsyncResult(f"b-{index}").state == "FAILURE"
    assert client.keys("lanes:batch:*") == []


def test_what_nobody_can_be_told_of_is_given_up(lanes_app, monkeypatch):
    """An ending that fails each time is not tried for ever."""
    monkeypatch.setattr(ended, "MOST_TAKES", 3)
    client, scripts = redis_client(lanes_app), ScriptClient(redis_client(lanes_app))
    job = lanes_app.send_task("some.task", queue="critical", headers={"deadline_at": time.time()})
    wait_until(lambda: scripts.claim() == [] and ids_in(client, "ended"), "it has ended", IN_TIME_S)
    client.lpush(f"celery-task-meta-{job.id}", "no result")  # the backend refuses it each time
    for left in (1, 1, 0):
        client.zadd("lanes:ended", {job.id: 0}, xx=True)
        work_off(lanes_app)
        assert client.zcard("lanes:ended") == left


def test_what_ended_is_taken_by_one_worker_at_a_time(lanes_app):
    """Nobody else takes what a worker has taken until its time is over; done, nobody does."""
    redis = redis_client(lanes_app)

    def taken(for_ms: int) -> list[str]:
        return [row[0].decode() for row in TAKE_ENDED.run(redis, (), ("", 20, for_ms))]

    job = lanes_app.send_task("some.task", queue="batch")
    assert Client(lanes_app).cancel(job)
    assert taken(60_000) == [job.id]
    assert taken(60_000) == []
    redis.zadd("lanes:ended", {job.id: time.time() * 1000 - 1})  # the time is over
    assert taken(60_000) == [job.id]
    assert [DONE_ENDED.run(redis, (), ("", job.id)) for _ in range(2)] == [1, 0]
    assert taken(60_000) == []
    assert (redis.hlen("lanes:jobs"), redis.hlen("lanes:texts")) == (0, 0)
