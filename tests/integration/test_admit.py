"""A project's own task around its own SDK call, in its own worker: it gets what a `create_message` gets."""

import json
from typing import Any

import pytest
from kit.client_rig import IN_TIME_S, Rig, drop_jobs, fresh, rig, the_dead
from kit.waiting import wait_until

from celery_app import dead_letters
from celery_app.broker.packet import cost_header
from celery_app.budget import Cost
from celery_app.connections.redis_client import redis_client
from celery_app.errors import ApiError, ApiUnreachable, Cancelled, NotAMessage
from celery_app.routing import COST, MODEL
from celery_app.scheduler.scripts import EXTEND
from tasks import LaneTask

#: Celery 5.7 stores a result by a command that redis-py 8 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

#: Attempts of a critical job here.
ATTEMPTS = 2

#: Nobody listens there.
NOWHERE = "http://127.0.0.1:9"

#: The project's key is none of the lanes', and does not look like one.
OWN_KEY = "project-secret-0123"
TEXT = "Rumpelstiltskin is the patient's name"


@pytest.fixture(scope="module")
def shared(valkey, tmp_path_factory):
    """The project's worker, for all tests; the lanes' own API is down."""
    env = {
        "EZAI_BASE_URL": NOWHERE,
        "EZAI_RPM": "6000",
        "EZAI_LIMITS": json.dumps({"scarce": {"rpm": 120}}),
        "LANES_CRITICAL_ATTEMPTS": str(ATTEMPTS),
        "OWN_KEY": OWN_KEY,
        "OWN_URL": "{api}",
    }
    with rig(valkey, 13, tmp_path_factory.mktemp("worker"), slots=4, app="own_tasks", **env) as up:
        yield up


@pytest.fixture
def up(shared):
    """The same, fresh for each test."""
    redis_client(shared.app).delete("left the block")
    drop_jobs(redis_client(shared.app))
    return fresh(shared)


def send(up: Rig, task: str, *arguments: Any, lane: str = "critical", **named: Any) -> Any:
    """Submit one of the project's jobs."""
    return up.app.send_task(f"own.{task}", arguments, named, queue=lane)


def calls_in_flight(up: Rig) -> int:
    """Return how many calls the budget takes for unsettled."""
    return sum(redis_client(up.app).scard(key) for key in redis_client(up.app).keys("lanes:budget:*:calls"))


def dead(up: Rig, number: int = 1) -> list[tuple[str, str]]:
    """Return the lanes and the reasons of the dead letters, which are so many."""
    return [(letter.lane, letter.reason) for letter in the_dead(up, number)]


def test_a_success_is_settled(up):
    """The answer is the task's, and what it used has replaced the estimate."""
    assert "hello" in send(up, "ask").get(timeout=IN_TIME_S)

    assert up.api.summary()["total"] == 1
    wait_until(lambda: not calls_in_flight(up), "the call is settled")


def test_a_429_returns_the_job_when_the_api_said(up):
    """No attempt is spent, however often it happens."""
    result = send(up, "ask", "429;retry-after=1")
    wait_until(lambda: up.api.summary()["total"] > ATTEMPTS, "more calls than the lane has attempts")
    assert up.client.cancel(result)

    first, second, *_ = [call["arrived"] for call in up.api.calls()]
    assert 1.0 <= second - first < 1.8
    assert not redis_client(up.app).exists("left the block")


@pytest.mark.parametrize(
    ("fault", "kind"),
    [("503", ApiError), ("529", ApiError), ("408", ApiError), ("drop", ApiUnreachable), ("broken_json", NotAMessage)],
)
def test_what_passes_is_tried_again(up, fault, kind):
    """The lane's attempts are spent, then the job fails with an error of ours, as a dead letter."""
    with pytest.raises(kind) as caught:
        send(up, "ask", fault).get(timeout=IN_TIME_S)

    assert up.api.summary()["total"] == ATTEMPTS
    assert dead(up) == [("critical", f"{kind.__name__} after {ATTEMPTS} attempts: {caught.value}")]


def test_a_refusal_fails_at_once(up):
    """With the API's own words, and without a traceback in the log."""
    with pytest.raises(ApiError, match="400 invalid_request_error: Simulated 400"):
        send(up, "ask", "400").get(timeout=IN_TIME_S)

    assert up.api.summary()["total"] == 1
    wait_until(lambda: "raised expected: ApiError" in up.worker.output(), "the log says so")
    assert "Traceback" not in up.worker.output()


@pytest.mark.parametrize(("task", "error"), [("broken", "none of the SDK's"), ("read", "Expecting value")])
def test_an_exception_that_is_none_of_the_sdks_passes(up, task, error):
    """It is the project's own, so it is neither translated nor repeated; the call is settled all the same."""
    with pytest.raises(Exception, match=error):
        send(up, task).get(timeout=IN_TIME_S)

    assert up.api.summary()["total"] <= 1
    wait_until(lambda: not calls_in_flight(up), "the call is settled")


def test_a_job_cancelled_in_the_block_goes_no_further(up):
    """The project's connection is its own to close; when its call has ended, so has the job."""
    up.api.control(latency=1.0)
    result = send(up, "ask")
    wait_until(lambda: up.api.summary()["in_flight"], "the call is at the API")
    assert up.client.cancel(result)
    wait_until(lambda: up.api.summary()["total"], "the call has ended")
    wait_until(lambda: not calls_in_flight(up), "the call is settled")
    up.api.control(latency=0.0)
    send(up, "ask").get(timeout=IN_TIME_S)

    with pytest.raises(Cancelled):
        result.get(timeout=IN_TIME_S)
    assert result.state == "REVOKED"
    assert redis_client(up.app).get("left the block") == b"1"


def test_two_calls_in_one_task_are_two_calls(up):
    """Each is admitted and settled; when the second fails for now, the whole task is repeated."""
    assert len(send(up, "twice").get(timeout=IN_TIME_S)) == 2
    assert up.api.summary()["total"] == 2
    up.api.clear()
    with pytest.raises(ApiError, match="500"):
        send(up, "twice", "500").get(timeout=IN_TIME_S)

    assert [call["status"] for call in up.api.calls()] == [200, 500] * ATTEMPTS
    wait_until(lambda: not calls_in_flight(up), "the calls are settled")


def test_jobs_that_find_no_room_come_out_again_with_their_reservations(up):
    """Each is run twice at most, none draws twice, the second delivery's call is paid for, and no attempt is spent."""
    denied = up.worker.output().count("OutOfBudget(")
    jobs = [send(up, "ask", model="scarce") for _ in range(6)]
    assert ["hello" in job.get(timeout=IN_TIME_S) for job in jobs] == [True] * 6

    assert up.api.summary()["total"] == 6
    assert 0 < up.worker.output().count("OutOfBudget(") - denied <= len(jobs)
    with pytest.raises(ApiError):
        send(up, "ask", "503", model="scarce").get(timeout=IN_TIME_S)
    assert up.api.summary()["total"] == 6 + ATTEMPTS
    wait_until(lambda: not calls_in_flight(up), "the calls are settled")


def test_a_task_that_declares_model_and_cost_never_finds_no_room(up):
    """Each of its jobs comes with its reservation, so none takes a slot to learn that there is nothing for it."""
    denied = up.worker.output().count("OutOfBudget(")

    class Declared(LaneTask):
        abstract = True
        model = "scarce"

        def cost_of(self, args: Any, kwargs: Any) -> Cost:
            return Cost(characters=len(args), max_tokens=len(kwargs))

    @up.app.task(base=Declared, shared=False, name="own.ask")
    def ask(model: str) -> str:
        return model

    jobs = [ask.apply_async(kwargs={"model": "scarce"}, queue="critical") for _ in range(6)]
    assert ["hello" in job.get(timeout=IN_TIME_S) for job in jobs] == [True] * 6

    assert up.worker.output().count("OutOfBudget(") == denied


def test_a_second_call_that_finds_no_room_waits_in_its_slot(up):
    """Also behind one that came with its reservation: a job that went back would make the first call again."""
    jobs = [send(up, "twice", model="scarce") for _ in range(3)]
    assert [len(job.get(timeout=IN_TIME_S)) for job in jobs] == [2] * 3

    assert up.api.summary()["total"] == 6


def test_a_job_that_another_worker_has_by_now_makes_no_further_call(up):
    """Its lease was over while its first call was under way: it is run again, and paid for once more, not twice."""
    up.api.control(latency=1.0)
    result, redis = send(up, "twice"), redis_client(up.app)
    wait_until(lambda: up.api.summary()["in_flight"], "the first call is at the API")
    redis.zadd("lanes:leases", {result.id: 1}, xx=True)
    EXTEND.run(redis, (), ("", 15_000))
    assert len(result.get(timeout=IN_TIME_S)) == 2

    wait_until(lambda: not calls_in_flight(up), "the calls are settled")
    assert up.api.summary()["total"] == 3


def test_a_reservation_for_another_model_is_given_back(up):
    """Its budget has room again while the task calls the model that it did not speak of."""
    up.api.control(latency=1.0)
    stated = {MODEL: "other", COST: cost_header(Cost())}
    result = up.app.send_task("own.ask", queue="critical", headers=stated)
    wait_until(lambda: up.api.summary()["in_flight"], "the call is at the API")
    assert calls_in_flight(up) == 1
    assert result.get(timeout=IN_TIME_S)

    wait_until(lambda: not calls_in_flight(up), "the call is settled")


def test_a_call_within_the_block_of_another_is_judged_once(up):
    """The job is requeued by the inner block; the outer one only settles."""
    assert "inner" in send(up, "nested").get(timeout=IN_TIME_S)
    up.api.clear()
    with pytest.raises(ApiError, match="500"):
        send(up, "nested", "500").get(timeout=IN_TIME_S)

    assert up.api.summary()["total"] == ATTEMPTS
    assert len(dead(up)) == 1
    wait_until(lambda: not calls_in_flight(up), "the calls are settled")


@pytest.mark.parametrize("fault", ["echo_input", "echo_prompt", "echo_prompt_again", "echo_key"])
def test_neither_prompt_nor_key_is_in_what_a_job_leaves_behind(up, fault):
    """Nor in the log: a project's prompts and key are as secret as the lanes'."""
    with pytest.raises(ApiError) as caught:
        send(up, "ask", fault, TEXT).get(timeout=IN_TIME_S)

    redis = redis_client(up.app)
    left = [redis.get(key) for key in redis.keys("celery-task-meta-*")] + redis.hvals("lanes:jobs")
    for place in (str(caught.value), up.worker.output(), str(left), str(dead_letters.find(up.app))):
        assert "Rumpelstiltskin" not in place
        assert OWN_KEY not in place


@pytest.mark.parametrize(("raised", "learns"), [(SystemExit, False), (KeyboardInterrupt, False), (None, True)])
def test_whatever_ends_a_block_early_is_no_answer(lanes_app, raised, learns):
    """The budget learns how long calls take from those that were answered alone."""

    @lanes_app.task(bind=True, base=LaneTask, shared=False)
    def job(self: LaneTask) -> None:
        with self.admit(model="m"):
            if raised is not None:
                raise raised

    if raised is None:
        job()
    else:
        with pytest.raises(raised):
            job()

    (budget,) = redis_client(lanes_app).keys("lanes:budget:*}")
    assert redis_client(lanes_app).hexists(budget, "call_us") is learns
