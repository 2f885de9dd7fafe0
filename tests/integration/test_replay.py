"""Jobs that died are replayed once the API is back: real workers, real HTTP."""

import time
from typing import Any

import pytest
from celery import chain, chord
from celery.exceptions import ChordError
from kit.client_rig import IN_TIME_S, Rig, params, text_of, the_dead, web_app
from kit.dead_rig import ATTEMPTS, dead_rig, died, down, up_again
from kit.waiting import wait_until

from celery_app import dead_letters
from celery_app.connections.redis_client import redis_client
from celery_app.dead_letters import Replayed
from celery_app.errors import AccountRefused, ApiError, DeadlineExceeded
from celery_app.metrics.stats import get_queue_stats
from celery_app.routing import DEADLINE_AT
from tests.conftest import close

#: Celery 5.7 stores a result by a command that redis-py 8 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")


@pytest.fixture(scope="module")
def shared(valkey, tmp_path_factory):
    """One worker for all tests."""
    with dead_rig(valkey, tmp_path_factory.mktemp("worker")) as up:
        yield up


@pytest.fixture
def up(shared):
    """The same, fresh for each test, with the API down."""
    return down(shared)


@pytest.fixture(scope="module")
def elsewhere(shared):
    """Another process of the web app: Celery may still have in this one's connection what it heard of a failure."""
    app = web_app(shared.env["CELERY_BROKER_URL"])
    yield app
    close(app)


def replay_all(up: Rig, number: int) -> None:
    """Replay all dead letters, which are so many."""
    assert dead_letters.replay(the_dead(up, number), up.app) == Replayed(number)


def part_of(up: Rig, text: str) -> Any:
    """Return the signature of a task that fails while things are broken."""
    return up.app.signature("dead.part", (text,), queue="batch", immutable=True)


def test_who_waits_for_a_replayed_job_gets_its_answer(up, elsewhere):
    """The letter says why it died and after how many tries; replayed, its id gets the answer."""
    result, letter = died(up)
    assert (letter.id, letter.lane, letter.task, letter.model) == (result.id, "critical", "tasks.create_message", "m")
    assert (letter.tries, letter.reason) == (ATTEMPTS, f"ApiError after {ATTEMPTS} attempts: {result.result}")
    assert dead_letters.get(result.id, up.app).error == f"ApiError: {result.result}"

    up_again(up, latency=0.5)
    replay_all(up, 1)
    waiting = elsewhere.AsyncResult(result.id)
    assert waiting.state != "FAILURE"
    assert waiting.get(timeout=IN_TIME_S)["type"] == "message"
    assert (elsewhere.AsyncResult(result.id).state, up.api.summary()["total"]) == ("SUCCESS", 1)
    assert dead_letters.find(up.app) == []
    assert get_queue_stats(up.app)["lanes"]["critical"]["dead"] == 0


def test_who_asks_for_a_name_that_is_replayed_gets_its_answer(up):
    """One that comes meanwhile waits for the same job, and no other call is made."""
    with pytest.raises(ApiError):
        up.client.ask(unique="report", **params())
    up_again(up, latency=1.0)
    replay_all(up, 1)
    assert up.client.ask(unique="report", **params()).type == "message"
    assert up.api.summary()["total"] == 1


def test_a_replayed_job_has_all_of_its_attempts_and_may_die_again(up, elsewhere):
    """It is called as often as its lane says, fails as it did, and is a dead letter with the same id."""
    result, _ = died(up)
    up.api.clear()
    replay_all(up, 1)
    with pytest.raises(ApiError):
        elsewhere.AsyncResult(result.id).get(timeout=IN_TIME_S)
    (letter,) = the_dead(up)
    assert (letter.id, letter.tries, up.api.summary()["total"]) == (result.id, ATTEMPTS, ATTEMPTS)


def test_a_batchs_figures_stay_true(up):
    """A part that is replayed has not ended, then it has, once; its result is the answer, wherever one reads from."""
    batch = up.client.submit_many([params(f"question {n}.") for n in range(3)])
    read = batch.results(patience=IN_TIME_S)
    assert all(isinstance(each.error, ApiError) for each in read)
    assert (batch.counts().failed, batch.counts().complete) == (3, True)

    up_again(up)
    letters = the_dead(up, 3)
    assert {letter.batch for letter in letters} == {batch.id}
    first, *others = sorted(letters, key=lambda letter: letter.id)
    redis_client(up.app).set(f"lanes:cancel:{first.id}", 1)  # whoever has waited for it wants it no more
    assert dead_letters.replay(others, up.app) == Replayed(2)
    found = {each.index: each for each in batch.results(patience=IN_TIME_S)}
    assert [found[n].error is None for n in range(3)] == [False, True, True]
    counts = batch.counts()
    assert (counts.queued, counts.done, counts.failed, counts.complete) == (3, 2, 1, True)

    assert dead_letters.replay([first], up.app) == Replayed(1)
    wait_until(lambda: batch.counts().complete, "the last has ended")
    counts = batch.counts()
    assert (counts.done, counts.failed, counts.cancelled) == (2, 0, 1)
    assert sorted(each.index for each in batch.results(patience=IN_TIME_S)) == [0, 1, 2]


def test_a_reader_in_the_midst_of_a_batch_gets_a_replayed_part_again(up):
    """First its error, then its answer; the reader ends when all have ended."""
    batch = up.client.submit_many([params(f"question {n}.") for n in range(2)])
    results = batch.results(patience=IN_TIME_S)
    failed = [next(results).index for _ in range(2)]
    up_again(up)
    replay_all(up, 2)
    assert sorted(failed) == sorted(each.index for each in results if each.message) == [0, 1]
    assert batch.counts().done == 2


def test_a_replayed_step_goes_on_with_its_chain(up, elsewhere):
    """The steps behind it had failed with it; they run, and who asks for the last one waits and gets its result."""
    last = chain(part_of(up, "a"), part_of(up, "b"), part_of(up, "c")).apply_async()
    wait_until(lambda: last.state == "FAILURE", "it has failed")
    the_dead(up)
    up_again(up)
    replay_all(up, 1)
    assert elsewhere.AsyncResult(last.id).get(timeout=IN_TIME_S) == "c"


@pytest.mark.parametrize("through_chain", [False, True])
def test_a_replayed_part_of_a_chord_counts_for_itself(up, elsewhere, through_chain):
    """The chord has failed and stays so, its body never runs; the part has its answer, and nothing is left."""
    part = chain(part_of(up, "a"), part_of(up, "z")) if through_chain else part_of(up, "a")
    body = chord([part, part_of(up, "b")], up.app.signature("dead.join", queue="batch")).apply_async()
    wait_until(lambda: body.state == "FAILURE", "it has failed")
    letters = the_dead(up, 2)
    redis = redis_client(up.app)
    wait_until(lambda: not redis.keys("chord-unit-*"), "it is over")
    up_again(up)
    replay_all(up, 2)
    for letter in letters:
        assert elsewhere.AsyncResult(letter.task_id).get(timeout=IN_TIME_S) in {"a", "b"}
    if through_chain:
        wait_until(lambda: "z" in results(up), "the end of the chain")
    assert isinstance(elsewhere.AsyncResult(body.id).result, ChordError)
    assert not redis.keys("chord-unit-*")
    assert "Task dead.join[" not in up.worker.output()


def results(up: Rig) -> list[Any]:
    """Return the results of all jobs."""
    keys = redis_client(up.app).keys("celery-task-meta-*")
    return [up.app.AsyncResult(key.decode().removeprefix("celery-task-meta-")).result for key in keys]


def test_a_replayed_stream_is_read_from_its_beginning(up):
    """Whoever comes for it now waits for the other answer; the events of the one that broke off are gone."""
    stream = up.client.stream(**params())
    assert [event["type"] for event in stream][-1] == "error"
    up_again(up, latency=0.5)
    replay_all(up, 1)
    again = up.client.stream_from(stream.task_id)
    events = list(again)
    assert events[-1] == {"type": "message_stop"}
    assert again.message is not None
    assert text_of(events) == again.message["content"][0]["text"]


def test_what_failed_because_of_the_account_is_kept_and_replayed_in_bulk(up, elsewhere):
    """The call that was refused, those that were not made, and one whose deadline passed in the queue meanwhile."""
    up.api.control(server_error_rate=0.0, spend_limit=True)
    refused = up.client.submit("critical", **params())
    with pytest.raises(ApiError):
        refused.get(timeout=IN_TIME_S)
    others = [up.client.submit("critical", **params()) for _ in range(3)]
    for each in others:
        with pytest.raises(AccountRefused):
            each.get(timeout=IN_TIME_S)
    task = up.app.tasks["tasks.create_message"]
    late = task.apply_async(kwargs=params(), queue="normal", headers={DEADLINE_AT: time.time() + 1})
    with pytest.raises(DeadlineExceeded, match="refuses the account"):
        late.get(timeout=IN_TIME_S)

    letters = the_dead(up, 5)
    assert {letter.reason.partition(": 429")[0] for letter in letters} == {"the API refuses the account"}
    assert sorted(letter.tries for letter in letters) == [0, 0, 0, 0, 1]
    up_again(up)
    found = dead_letters.find(up.app, reason="refuses the account")
    assert dead_letters.replay([each for each in found if each.lane == "critical"], up.app) == Replayed(4)
    for each in (refused, *others):
        assert elsewhere.AsyncResult(each.id).get(timeout=IN_TIME_S)["type"] == "message"
    assert dead_letters.replay([each for each in found if each.lane == "normal"], up.app) == Replayed(1)
    wait_until(lambda: elsewhere.AsyncResult(late.id).ready(), "it has ended")


def test_a_job_is_kept_whatever_its_projects_ending_does(up):
    """A base that overrides `on_failure`, and breaks in it, loses no dead letter."""
    up.app.send_task("dead.own_ending", queue="batch")
    (letter,) = the_dead(up)
    assert (letter.task, letter.reason) == ("dead.own_ending", "ValueError after 1 attempts")


def test_a_pools_process_keeps_what_died(valkey, tmp_path):
    """It has no leases of its own; the letter is there once the failure is stored, and its replay is worked on."""
    with dead_rig(valkey, tmp_path, "-c", "2", "-P", "prefork", db=14) as up:
        down(up)
        result = up.app.send_task("dead.part", ("x",), queue="batch")
        (letter,) = the_dead(up)
        assert up.app.AsyncResult(result.id).state == "FAILURE"
        up_again(up)
        assert dead_letters.replay([letter], up.app) == Replayed(1)
        wait_until(lambda: up.app.AsyncResult(result.id).result == "x", "its answer")
