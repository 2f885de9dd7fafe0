"""What one refusal says of whom: of its job, of the model's budget, or of the account. Real workers, real HTTP."""

import time
from typing import Any

import anthropic
import httpx2
import pytest
from kit.client_rig import IN_TIME_S, Rig, drop_jobs, fresh, params, rig, the_dead
from kit.waiting import wait_until

from celery_app import dead_letters
from celery_app.connections.redis_client import redis_client
from celery_app.errors import AccountRefused, ApiError, ApiUnreachable, CallTimeout, DeadlineExceeded, PromptTooLarge
from celery_app.metrics.stats import get_queue_stats
from celery_app.routing import DEADLINE_AT
from tasks import create_message, stream_message
from tasks.failures import failure_of

#: Celery 5.7 stores a result by a command that redis-py 8 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

#: Seconds that a call of a batch job may take here.
CALL_TIMEOUT = 0.6

#: The project's own tasks call with the lanes' key.
KEY = "sk-test"

#: The three ways in which a call is made.
WAYS = ("create", "stream", "admit")


@pytest.fixture(scope="module")
def shared(valkey, tmp_path_factory):
    """One worker, of a project that has tasks of its own beside the lanes'."""
    env = {"LANES_BATCH_CALL_TIMEOUT": str(CALL_TIMEOUT), "LANES_NORMAL_ATTEMPTS": "2"}
    own = {"OWN_KEY": KEY, "OWN_URL": "{api}", "EZAI_API_KEY": KEY}
    with rig(valkey, 14, tmp_path_factory.mktemp("worker"), app="own_tasks", **env, **own) as up:
        yield up


@pytest.fixture
def up(shared):
    """The same, fresh for each test."""
    drop_jobs(redis_client(shared.app))
    return fresh(shared, rpm=None, itpm=None, spend_limit=False)


def send(
    up: Rig, way: str = "create", fault: str | None = None, lane: str = "batch", text: str = "hello", **options: Any
) -> Any:
    """Submit a job of model ``m`` in one of the ways."""
    if way == "admit":
        return up.app.send_task("own.ask", (fault, text), queue=lane, **options)
    task = {"create": create_message, "stream": stream_message}[way]
    return up.app.tasks[task.name].apply_async(kwargs=params(text, fault), queue=lane, **options)


def calls_with(up: Rig, fault: str | None) -> int:
    """Return how many calls with this fault the API has seen."""
    return sum(call["fault"] == fault for call in up.api.calls())


class TestTimeout:
    """An answer that takes longer than a call may."""

    # A project's own client has a timeout for each read, which a server that drips never exceeds.
    @pytest.mark.parametrize(
        ("way", "fault"),
        [(way, fault) for way in WAYS for fault in ("hang", "drip") if (way, fault) != ("admit", "drip")],
    )
    def test_a_call_timeout_is_repeated_once(self, up, way, fault):
        """Whatever the lane's attempts, two answers are paid for; the error names what to set, and so does the log."""
        job = send(up, way, fault)
        with pytest.raises(CallTimeout, match=r"within 0\.\d s \(.*LANES_BATCH_CALL_TIMEOUT\)\."):
            job.get(timeout=IN_TIME_S)

        assert up.api.summary()["total"] <= 2  # on a busy machine a call may be over before it has arrived
        (dead,) = the_dead(up)
        assert "CallTimeout after 2 attempts" in dead.reason
        assert "LANES_BATCH_CALL_TIMEOUT" in dead.reason

    @pytest.mark.parametrize("kind", [httpx2.ConnectTimeout, httpx2.PoolTimeout])
    @pytest.mark.parametrize("wrapped", [False, True])
    def test_a_connection_that_never_came_was_paid_for_by_nobody(self, kind, wrapped):
        """An API behind a firewall that drops packets is away: all of the lane's attempts are there for it."""
        cause = kind("timed out")
        error = anthropic.APITimeoutError(httpx2.Request("POST", "http://api.test"))
        error.__cause__ = cause
        judged = failure_of(error if wrapped else cause, 5.0)

        assert judged is not None
        assert isinstance(judged.error, ApiUnreachable)
        assert (judged.kind, judged.timed_out, judged.outcome) == ("retry", False, "overloaded")


def waiting_for(up: Rig, lane: str) -> str:
    """Return what a lane waits for, in words."""
    return get_queue_stats(up.app)["lanes"][lane]["waiting_for"] or ""


def budget_key(up: Rig) -> bytes:
    """Return the key of the one budget."""
    redis = redis_client(up.app)
    (key,) = (key for key in redis.keys("lanes:budget:{*") if key.endswith(b"}"))
    return bytes(key)


def let_probe(up: Rig) -> None:
    """Have the time of the next probe come."""
    redis_client(up.app).hset(budget_key(up), "probe_at", 1)


class TestJob:
    """A refusal that is the job's own: nobody else is held up, and it has an end."""

    @pytest.mark.parametrize("way", WAYS)
    def test_a_prompt_above_the_limit_of_a_minute_fails_at_once(self, up, way):
        """Without a call, once the limit is known; the error tells both numbers."""
        up.api.control(itpm=1_000)
        assert send(up, way, text="hello").get(timeout=IN_TIME_S)
        up.api.clear()
        redis_client(up.app).hset(budget_key(up), "input_tokens_limit", 9 if way == "admit" else 1_000)
        with pytest.raises(PromptTooLarge, match="no waiting helps"):
            send(up, way, text="many words " * 2_000).get(timeout=IN_TIME_S)

        assert up.api.summary()["total"] == 0
        assert dead_letters.find(up.app) == []

    @pytest.mark.parametrize(
        ("way", "fault"),
        [
            ("create", "429;retry-after=0"),
            ("stream", "429;retry-after=0"),
            ("admit", "429;retry-after=0"),
            ("stream", "stream_rate_limited"),
        ],
    )
    def test_a_job_refused_again_and_again_while_others_are_answered_has_an_end(self, up, way, fault):
        """After a first refusal without cost each spends an attempt, and the error is the API's."""
        up.api.control(rpm=6_000)
        assert send(up).get(timeout=IN_TIME_S)  # now the limit is known
        refused = send(up, way, fault, "normal")
        answer_others_until(up, refused, fault)

        with pytest.raises(ApiError, match="429"):
            refused.get(timeout=IN_TIME_S)
        (dead,) = the_dead(up)
        assert dead.lane == "normal"
        assert dead.reason.startswith("ApiError after 2 attempts")
        assert calls_with(up, fault) >= 3

    def test_a_job_refused_while_nobody_is_answered_waits(self, up):
        """The limit may be somebody else's for as long as it takes."""
        refused = send(up, "create", "429;retry-after=0", "normal")
        wait_until(lambda: calls_with(up, "429;retry-after=0") > 4, "more calls than attempts")

        assert not refused.ready()
        assert up.client.cancel(refused)


def answer_others_until(up: Rig, refused: Any, fault: str) -> None:
    """Have another job answered after each call of the refused one, until that has ended."""
    seen = 0
    while not refused.ready():
        before = seen
        wait_until(lambda before=before: refused.ready() or calls_with(up, fault) > before, "another call")
        seen = calls_with(up, fault)
        send(up, lane="critical").get(timeout=IN_TIME_S)


class TestShut:
    """A budget that a retry-after has shut."""

    def test_it_is_told_for_how_long_and_why(self, up):
        """In the stats of every lane that draws on it, and in the error of a job whose deadline it passes."""
        job = send(up, fault="429;retry-after=3600")
        wait_until(lambda: "shut the budget of m" in waiting_for(up, "critical"), "it is told")

        for lane in ("critical", "normal", "batch"):
            assert "for another 60 min (429 rate_limit_error: Simulated 429)" in waiting_for(up, lane)
        with pytest.raises(DeadlineExceeded, match=r"shut the budget of m for another 60 min \(429 .*Simulated 429\)"):
            send(up, lane="critical", headers={DEADLINE_AT: time.time() + 5}).get(timeout=IN_TIME_S)
        with pytest.raises(DeadlineExceeded, match=r"in the queue, where it waited for the API, which has shut .*429"):
            send(up, lane="normal", headers={DEADLINE_AT: time.time() - 1}).get(timeout=IN_TIME_S)
        assert up.api.summary()["total"] == 1
        assert "the API has shut the budget of m" in up.worker.output()
        assert up.client.cancel(job)

    @pytest.mark.parametrize("fault", ["429;retry-after=3600", "529;retry-after=3600"])
    def test_a_probe_that_is_answered_opens_it(self, up, fault):
        """One job's verdict does not shut everybody out for an hour: those that wait go at once."""
        job = send(up, fault=fault)
        wait_until(lambda: waiting_for(up, "normal"), "it is shut")
        waiting = [send(up, lane="normal") for _ in range(3)]
        let_probe(up)
        assert send(up, lane="critical").get(timeout=IN_TIME_S)

        for each in waiting:
            assert each.get(timeout=IN_TIME_S)
        assert waiting_for(up, "normal") == ""
        assert up.client.cancel(job)


#: What the API answers to every call of an account that is not in order, and its status.
ACCOUNT = {"401": 401, "402": 402, "403": 403, "spend_limit": 429, "credit_used_up": 400}


class TestAccount:
    """A refusal that concerns the account."""

    @pytest.mark.parametrize("fault", ACCOUNT)
    @pytest.mark.parametrize("way", WAYS)
    def test_the_jobs_of_normal_and_batch_stay_queued(self, up, way, fault):
        """None fails, hardly any is called, no attempt is spent; critical fails at once and is kept; all hear why."""
        jobs = [send(up, way, fault, lane) for lane in ("normal", "batch") for _ in range(20)]
        said = f"{ACCOUNT[fault]} "
        wait_until(lambda: said in waiting_for(up, "normal") and said in waiting_for(up, "batch"), "it is told")
        with pytest.raises(AccountRefused, match=said):
            send(up, way, lane="critical").get(timeout=IN_TIME_S)

        assert "refuses the account" in waiting_for(up, "critical")
        assert up.api.summary()["total"] <= 8  # the slots
        assert not any(job.ready() for job in jobs)
        (dead,) = the_dead(up)
        assert dead.lane == "critical"
        assert dead.reason.startswith(f"the API refuses the account: {said}")
        for job in jobs:
            assert up.client.cancel(job)

    def test_a_success_opens_it(self, up):
        """Once the account is in order, a probe finds out, and what has waited goes on; the log has a line each."""
        up.api.control(spend_limit=True)
        said = up.worker.output().count("it refuses the account; one job a minute probes")
        first = send(up, lane="normal")
        wait_until(lambda: "refuses the account" in waiting_for(up, "normal"), "it is shut")
        jobs = [send(up, lane="normal") for _ in range(20)]
        let_probe(up)
        wait_until(lambda: up.api.summary()["total"] == 2, "one probe")
        up.api.control(spend_limit=False)
        let_probe(up)
        wait_until(lambda: sum(job.ready() for job in jobs) >= len(jobs) - 1, "all but the probe are back")
        assert waiting_for(up, "normal") == ""
        assert send(up, lane="critical").get(timeout=IN_TIME_S)
        assert up.worker.output().count("it refuses the account; one job a minute probes") == said + 1
        assert "the API answers again" in up.worker.output()
        for job in (first, *jobs):
            up.client.cancel(job)

    @pytest.mark.parametrize("fault", ["model_forbidden", "400", "404"])
    def test_a_refusal_of_one_job_shuts_nothing(self, up, fault):
        """A model that the key may not call is the business of those who call it."""
        with pytest.raises(ApiError):
            send(up, fault=fault).get(timeout=IN_TIME_S)

        assert waiting_for(up, "batch") == ""
        assert send(up).get(timeout=IN_TIME_S)
