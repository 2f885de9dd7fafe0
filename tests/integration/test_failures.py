"""What a job gets for each failure of its call: a real worker, a real broker, and HTTP that really fails."""

import json
import re
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
from kit.client_rig import IN_TIME_S, Rig, drop_jobs, fresh, params, rig, text_of, the_dead
from kit.waiting import in_time, wait_until

from celery_app import dead_letters
from celery_app.connections.redis_client import redis_client
from celery_app.errors import ApiError, ApiUnreachable, CallTimeout, DeadlineExceeded, LanesError, NotAMessage
from celery_app.routing import DEADLINE_AT
from tasks import create_message, stream_message

#: Celery 5.7 stores a result by a command that redis-py 8 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

#: Attempts of a critical job here: one repetition shows that there is one, and costs half a second at most.
ATTEMPTS = 2

#: Seconds by which a job may come late; its time has come, but a machine is busy with other tests.
LATE = 0.8

#: Seconds that a message may take which is complete.
COMPLETE_S = 2.0

#: What may stand where seconds or a date would have been.
NO_TIME = "in a moment"


#: A fault -> what its job fails with at last, and what of its words.
PASSING: dict[str, tuple[type[LanesError], str]] = {
    **{
        str(status): (ApiError, f"{status} ")
        for status in (408, 409, 425, 500, 502, 503, 504, 520, 521, 522, 523, 529, 599)
    },
    "unavailable": (ApiError, "503 error: its body is no error of the Messages API \\(text/html\\)"),
    "drop": (ApiUnreachable, "disconnected"),
    "reset": (ApiUnreachable, "reset by peer"),
    "drop_mid_stream": (ApiUnreachable, "its answer is incomplete"),
    "html": (NotAMessage, "text/html"),
    "broken_json": (NotAMessage, "application/json"),
}

#: The same in a stream.
PASSING_IN_STREAM: dict[str, tuple[type[LanesError], str]] = {
    "stream_overloaded": (ApiError, "529 overloaded_error: Overloaded"),
    "stream_api_error": (ApiError, "500 api_error: Internal server error"),
    "stream_unknown_error": (ApiError, "500 moon_phase_error: Wrong phase"),
    "truncated": (ApiUnreachable, "ended before its message"),
    "drop_mid_stream": (ApiUnreachable, "incomplete"),
    "reset": (ApiUnreachable, "reset by peer"),
    "html": (NotAMessage, "text/html"),
    "broken_json": (NotAMessage, "an event that is no JSON"),
    "drop": (ApiUnreachable, "disconnected"),
}

#: Each with a model, and so with a budget, of its own: they fail beside each other.
ROWS = {
    **{f"whole-{fault}": (fault, *expected) for fault, expected in PASSING.items()},
    **{f"stream-{fault}": (fault, *expected) for fault, expected in PASSING_IN_STREAM.items()},
}

#: What slows everybody down: an overload, and whatever is as good as no API at all. Who ends a stream, with or without
#: an error in it, can be reached.
SLOWING = {"521", "522", "523", "529", "drop", "reset", "drop_mid_stream"}


@pytest.fixture(scope="module")
def shared(valkey, tmp_path_factory):
    """One worker for all tests, which gives up early."""
    env = {
        "EZAI_LIMITS": json.dumps({model: {"concurrency": 100} for model in ROWS}),
        "LANES_CRITICAL_ATTEMPTS": str(ATTEMPTS),
        "LANES_NORMAL_CALL_TIMEOUT": "1",
    }
    with rig(valkey, 12, tmp_path_factory.mktemp("worker"), **env) as up:
        yield up


@pytest.fixture
def up(shared):
    """The same, fresh for each test."""
    drop_jobs(redis_client(shared.app))
    return fresh(shared, headers=True, rpm=None)


def submit(
    up: Rig,
    fault: str | None = None,
    *,
    streaming: bool = False,
    lane: str = "critical",
    model: str = "m",
    **options: Any,
) -> Any:
    """Submit a call that meets a fault at the API."""
    task = stream_message if streaming else create_message
    kwargs = {**params(fault=fault), "model": model}
    return up.app.tasks[task.name].apply_async(kwargs=kwargs, queue=lane, **options)


def error_of(result: Any) -> LanesError:
    """Return what a job has failed with."""
    with pytest.raises(LanesError) as caught:
        result.get(timeout=IN_TIME_S)
    return caught.value


def arrivals(up: Rig, fault: str | None) -> list[float]:
    """Return when the calls with this fault were at the API."""
    return [call["arrived"] for call in up.api.calls() if call["fault"] == fault]


@dataclass(frozen=True, slots=True)
class Ended:
    """A job that failed for good.

    Attributes:
        error: its result.
        calls: that it made.
        dead: the reason of its dead letter.
        slowed: whether it has slowed its budget down.
    """

    error: LanesError
    calls: int
    dead: str | None
    slowed: bool


@pytest.fixture(scope="module")
def ended(shared):
    """A job for each row, all of them at once."""
    results = {
        model: submit(shared, fault, streaming=model.startswith("stream-"), model=model)
        for model, (fault, *_) in ROWS.items()
    }
    errors = {model: error_of(result) for model, result in results.items()}
    calls = Counter(call["model"] for call in shared.api.calls())
    wait_until(lambda: len(reasons_of(shared)) == len(results), "the last is dead-lettered, once it has been told")
    reasons, slowed = reasons_of(shared), slowed_models(shared)
    return {
        model: Ended(errors[model], calls[model], reasons.get(result.id), model in slowed)
        for model, result in results.items()
    }


def reasons_of(up: Rig) -> dict[str, str]:
    """Return the reason of each dead letter by its job's id."""
    return {each.task_id: f"{each.lane}|{each.reason}" for each in dead_letters.find(up.app)}


def slowed_models(up: Rig) -> set[str]:
    """Return the models whose API is taken for overloaded."""
    redis = redis_client(up.app)
    budgets = [key for key in redis.keys("lanes:budget:*") if key.endswith(b"}")]
    return {key.decode().rpartition(":")[2].rstrip("}") for key in budgets if redis.hexists(key, "overload_rate")}


@pytest.mark.parametrize("row", ROWS)
def test_what_passes_is_tried_again_and_then_dead_lettered(ended, row):
    """The job is called as often as its lane says, fails with the last error, and is kept with it as a dead letter."""
    _, kind, words = ROWS[row]
    found = ended[row]

    assert type(found.error) is kind
    assert re.search(words, str(found.error))
    assert found.calls == ATTEMPTS
    assert found.dead == f"critical|{kind.__name__} after {ATTEMPTS} attempts: {found.error}"


@pytest.mark.parametrize("row", ROWS)
def test_an_api_that_is_overloaded_or_down_slows_everybody_down(ended, row):
    """A gateway that does not reach the API is as a connection that is lost; any other failure is one job's own."""
    assert ended[row].slowed is (ROWS[row][0] in SLOWING)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("status", [302, 307, 400, 401, 402, 403, 404, 405, 413, 418, 422, 451, 501, 505])
def test_what_lasts_fails_at_once(up, status, streaming):
    """What no repetition mends is called once, reported with its real status; a dead letter, if it is the account's."""
    error = error_of(submit(up, str(status), streaming=streaming))

    assert isinstance(error, ApiError)
    assert f" {status} " in str(error)
    assert f"Simulated {status}" in str(error)
    assert up.api.summary()["total"] == 1
    (dead,) = the_dead(up) if status in {401, 402, 403} else (None,)
    assert dead is None or dead.reason.startswith(f"the API refuses the account: {status} ")
    assert dead is not None or dead_letters.find(up.app) == []


#: What an API may do behind a complete message.
BEHIND = ("done_behind", "usage_behind", "null_behind", "reset_behind", "open_behind")


@pytest.mark.parametrize("fault", BEHIND)
def test_a_complete_stream_is_paid_for_once(up, fault):
    """Whatever comes behind message_stop, or does not end, the message is there, at once and after one call."""
    begun = time.monotonic()
    stream = up.client.stream(**params(fault=fault))
    events = list(stream)
    message = up.app.AsyncResult(stream.task_id).get(timeout=IN_TIME_S)

    assert time.monotonic() - begun < in_time(COMPLETE_S)
    assert [event["type"] for event in events].count("message_stop") == 1
    assert events[-1] == {"type": "message_stop"}
    assert text_of(events) == message["content"][0]["text"]
    assert stream.message == message
    wait_until(lambda: up.api.summary()["in_flight"] == 0, "the connection is closed")
    assert up.api.summary()["total"] == 1
    assert up.app.AsyncResult(stream.task_id).state == "SUCCESS"


def teach_limits(up: Rig) -> None:
    """Have the budget learn a generous limit; without one, it would slow down after a single refusal."""
    up.api.control(rpm=6_000)
    submit(up).get(timeout=IN_TIME_S)
    up.api.clear()


def test_a_429_closes_the_budget_for_everybody_and_costs_no_attempt(up):
    """The job comes again when the API said, as often as it takes; no other lane's job is called in between."""
    teach_limits(up)
    fault = "429;retry-after=1"
    limited = submit(up, fault)
    wait_until(lambda: redis_client(up.app).exists("lanes:budget:shut"), "the budget has heard of the first call")
    other = submit(up, lane="normal")
    wait_until(lambda: len(arrivals(up, fault)) > ATTEMPTS, "more calls than the lane has attempts")
    assert up.client.cancel(limited)
    assert other.get(timeout=IN_TIME_S)["type"] == "message"

    first, second, third, *_ = arrivals(up, fault)
    assert 1.0 <= second - first < 1.0 + in_time(LATE)
    assert 1.0 <= third - second < 1.0 + in_time(LATE)
    # The budget hears of it when the call is settled, some milliseconds after it has arrived.
    assert not [at for at in arrivals(up, None) for refused in (first, second) if 0.1 < at - refused < 1.0]


@pytest.mark.parametrize(("fault", "headers"), [("429", False), (f"429;retry-after={NO_TIME}", True)])
def test_a_429_that_does_not_say_when_costs_no_attempt_either(up, fault, headers):
    """A gateway strips the header or writes nonsense into it; the budget finds the pace."""
    teach_limits(up)
    up.api.control(headers=headers)
    limited = submit(up, fault)

    wait_until(lambda: len(arrivals(up, fault)) > ATTEMPTS, "more calls than the lane has attempts")
    assert limited.state in {"RETRY", "STARTED", "PENDING"}
    assert up.client.cancel(limited)
    first, second, *_ = arrivals(up, fault)
    assert 0.1 <= second - first < 0.1 + in_time(LATE)


def test_a_rate_limit_within_a_stream_costs_no_attempt(up):
    """It arrives with status 200, and is a 429 all the same."""
    teach_limits(up)
    fault = "stream_rate_limited"
    limited = submit(up, fault, streaming=True)

    wait_until(lambda: len(arrivals(up, fault)) > ATTEMPTS, "more calls than the lane has attempts")
    assert not limited.ready()
    assert up.client.cancel(limited)


def test_a_503_is_tried_again_when_it_says(up):
    """The API's retry-after outweighs a shorter backoff; an attempt is spent."""
    fault = "503;retry-after=1"
    error_of(submit(up, fault))

    first, second = arrivals(up, fault)
    assert 1.0 <= second - first < 1.0 + in_time(LATE)


@pytest.mark.parametrize("fault", ["429;retry-after=40", "429;retry-after=1e308", "503;retry-after=999999999"])
def test_a_job_that_would_return_after_its_deadline_fails_at_once(up, fault):
    """Nobody waits in vain, and the reason is the API's."""
    error = error_of(submit(up, fault))

    assert isinstance(error, DeadlineExceeded)
    assert f"before its next attempt in {'40.0' if '40' in fault else '3600.0'} s" in str(error)
    assert f"The API refused the call: {fault[:3]}" in str(error)
    assert up.api.summary()["total"] == 1


@pytest.mark.parametrize("seconds", ["1e308", "inf", "999999999"])
def test_a_job_without_a_deadline_waits_an_hour_at_most(up, seconds):
    """A gateway's nonsense sends no job away for years, and none fails of it."""
    result = submit(up, f"429;retry-after={seconds}", lane="batch")
    wait_until(lambda: result.state == "RETRY", "it is back in its lane")

    ((_, due),) = redis_client(up.app).zrange("lanes:scheduled", 0, -1, withscores=True)
    assert 3_600 - 10 < due / 1_000 - time.time() <= 3_600
    assert up.client.cancel(result)


def test_a_deadline_that_passes_while_it_waits_for_the_budget(up):
    """The job fails as soon as that is certain, without a call."""
    closing = submit(up, "429;retry-after=30", lane="batch")
    wait_until(lambda: closing.state == "RETRY", "the budget is closed")
    begun = time.time()
    error = error_of(submit(up, headers={DEADLINE_AT: begun + 5}))

    assert isinstance(error, DeadlineExceeded)
    assert "in the queue, where it waited for the API" in str(error)
    assert time.time() - begun < 2.0
    assert up.api.summary()["total"] == 1
    assert up.client.cancel(closing)


@pytest.mark.parametrize("fault", ["hang", "drip"])
def test_a_call_ends_at_its_deadline_however_the_server_stalls(up, fault):
    """A server that answers a byte at a time cannot keep a slot: the whole call has one deadline."""
    result = submit(up, fault, lane="normal")
    wait_until(lambda: isinstance(result.info, CallTimeout), "the first attempt has ended")
    assert up.client.cancel(result)


def test_a_spend_limit_is_no_rate_limit(up):
    """A 429 that no waiting helps against fails at once."""
    assert " 429 " in str(error_of(submit(up, "spend_limit")))
    assert up.api.summary()["total"] == 1


def test_a_large_max_tokens_needs_no_stream(up):
    """The SDK would refuse it without a timeout; the lane's is given."""
    assert up.client.submit(**params(max_tokens=60_000)).get(timeout=IN_TIME_S)["type"] == "message"


def test_a_wrong_request_sent_by_name_fails_in_the_worker(up):
    """A producer that does not have the task's code gets the same answer, as the job's result."""
    result = up.app.send_task("tasks.create_message", kwargs={"model": "m"}, queue="critical")
    assert "max_tokens" in str(error_of(result))
