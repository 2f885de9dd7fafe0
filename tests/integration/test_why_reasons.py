"""Every reason for which a job waits, provoked for real, and what `lanes why` says of its lane and of the job."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import pytest
from kit.client_rig import Rig, nothing_set, params, rig, wait_until

from celery_app import LANES, controls
from celery_app.cli.why import _job, _lanes
from celery_app.metrics.reasons import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Valkey

#: Celery 5.7 stores a result by a command that redis-py 8 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

#: Lanes whose jobs wait for the first with their prompt's beginning; nothing else here has one.
CACHED = tuple(replace(lane, prompt_caches=True) for lane in LANES)

COMMAND = "celery -A proj"
SAYS_LIMIT = r"the limit is {} {}, .*critical \(\d+ in flight\) and normal \(\d+ in flight\) may draw on it, too.*"


class Case(NamedTuple):
    """How a reason comes about, and what is said of it."""

    name: str
    provoke: Callable[[Rig], str]
    kind: Kind
    words: str
    advice: str
    of_lane: str | None = None  # words that are not those of the job


def submit(up: Rig, fault: str | None = None, lane: str = "batch", text: str = "hello", **more: Any) -> str:
    """Submit a job; return its id."""
    return str(up.client.submit(lane, **params(text, fault, **more)).id)


def paused(up: Rig, **how: Any) -> str:
    """Pause the lane."""
    controls.pause(up.app, "batch", by="ann@web1", **how)
    return submit(up)


def out_of_money(up: Rig) -> str:
    """Allow the lane no money."""
    controls.set_limits(up.app, {"usd_per_day": 0}, lane="batch")
    return submit(up)


def short_of(up: Rig, text: str = "hello", **limits: int) -> str:
    """Have some jobs take what there is of a limit, and one more."""
    controls.set_limits(up.app, limits, model="m", new=True)
    jobs = [submit(up, text=text) for _ in range(4)]
    reasons = lambda: _job(up.app, jobs[-1], COMMAND)["waiting_for"]  # noqa: E731
    wait_until(lambda: any(each["kind"] == "budget" for each in reasons()), "the budget is short, not only the slots")
    return jobs[-1]


def at_work(up: Rig) -> None:
    """Have a job keep the API busy."""
    up.api.control(latency=20.0)
    first = submit(up)
    wait_until(lambda: _job(up.app, first, COMMAND)["state"] == "running", "a call goes on")


def behind_a_call(up: Rig) -> str:
    """Take the only call that is allowed."""
    controls.set_limits(up.app, {"concurrency": 1}, model="m", new=True)
    at_work(up)
    return submit(up)


def behind_a_first(up: Rig) -> str:
    """Have the first job with a prompt's beginning keep the API busy."""
    up.api.control(latency=5.0)
    block = {"type": "text", "text": "hello " * 300, "cache_control": {"type": "ephemeral"}}
    first, second = (submit(up, system=[block]) for _ in range(2))
    wait_until(lambda: _job(up.app, first, COMMAND)["state"] == "running", "a call goes on")
    return second


def behind_slots(up: Rig) -> str:
    """Take both slots."""
    at_work(up)
    at_work(up)
    return submit(up)


def refused(up: Rig, fault: str, **behaviour: Any) -> str:
    """Have the API refuse a call, and submit another job."""
    up.api.control(**behaviour)
    first = submit(up, fault)
    wait_until(lambda: _job(up.app, first, COMMAND)["state"] in {"scheduled", "dead"}, "a call was refused")
    for _ in range(3):
        submit(up)
    return submit(up)


def overloaded(up: Rig) -> str:
    """Have the API answer 529 to everybody, and more jobs than it gets then."""
    up.api.control(outage=True)
    jobs = [submit(up) for _ in range(40)]

    def goes_slowly() -> bool:
        return any(each["kind"] == "overloaded" for each in _job(up.app, jobs[-1], COMMAND)["waiting_for"])

    wait_until(goes_slowly, "it goes slowly")
    return jobs[-1]


def later(up: Rig) -> str:
    """Submit a job for later."""
    return str(up.app.send_task("tasks.create_message", kwargs=params(), queue="batch", countdown=600).id)


API_SAYS = r"the API, which has shut the budget of m for another \d+ min \(429 rate_limit_error: .*\)"
REFUSES = r"the API, which refuses the account and so has shut the budget( of m)? \({}.*\); one job a minute probes"
RESUME = rf"end it now: {COMMAND} lanes resume batch"
ACCOUNT = rf"put the account in order, .*: {COMMAND} lanes dead list --lane batch"

CASES = (
    Case("pause", paused, "paused", r"`lanes resume batch`, since ann@web1 paused it .* ago", RESUME),
    Case(
        "pause for a time",
        lambda up: paused(up, for_s=600),
        "paused",
        r"the end of the pause by ann@web1, in \d+ min",
        RESUME,
    ),
    Case(
        "pause of a model",
        lambda up: paused(up, model="m*", new=True),
        "paused",
        r"`lanes resume batch`, since ann@web1 paused it of m\* .* ago",
        RESUME,
    ),
    Case(
        "requests",
        lambda up: short_of(up, rpm=1),
        "budget",
        r"the budget of m: requests per minute, \d+\.\d s",
        SAYS_LIMIT.format(1, "requests per minute") + "limits set 'm' rpm=2",
    ),
    Case(
        "input tokens",
        lambda up: short_of(up, "hello " * 20, itpm=60),
        "budget",
        r"the budget of m: input tokens per minute, \d+\.\d s",
        SAYS_LIMIT.format(60, "input tokens per minute") + "limits set 'm' itpm=120",
    ),
    Case(
        "output tokens",
        lambda up: short_of(up, otpm=10),
        "budget",
        r"the budget of m: output tokens per minute, \d+\.\d s",
        SAYS_LIMIT.format(10, "output tokens per minute") + "limits set 'm' otpm=20",
    ),
    Case(
        "calls in flight",
        behind_a_call,
        "budget",
        r"the budget of m: calls in flight, \d+\.\d s",
        r"the limit is 1 calls in flight, 1 are on their way; .*limits set 'm' concurrency=2",
    ),
    Case(
        "requests of a day",
        lambda up: short_of(up, rpd=2),
        "budget",
        r"the budget of m: requests per day, [12] of 2 used, .* (s|min)",
        r"the limit is 2 requests per day; .*limits set 'm' rpd=4",
    ),
    Case(
        "money",
        out_of_money,
        "cap",
        r"usd cap of lane batch reached: 0\.00 of 0\.00 \$, until 00:00 UTC",
        rf"wait; or raise it, for instance to twice as much: {COMMAND} lanes limits set --lane batch usd_per_day=1.00",
    ),
    Case("retry-after", lambda up: refused(up, "429;retry-after=600"), "shut", API_SAYS, "nothing, a job now and then"),
    Case("401", lambda up: refused(up, "echo_key"), "account", REFUSES.format("401"), ACCOUNT),
    Case("credit", lambda up: refused(up, "credit_used_up"), "account", REFUSES.format("400"), ACCOUNT),
    Case("spend limit", lambda up: refused(up, "spend_limit"), "account", REFUSES.format("429"), ACCOUNT),
    Case(
        "529",
        overloaded,
        "overloaded",
        r"the API, which is overloaded: calls of m go slowly for a while, \d+\.\d s",
        "nothing, it gets faster",
    ),
    Case(
        "slots",
        behind_slots,
        "slots",
        "a slot of batch",
        r"(batch p99 .*)?target 600,000 ms: ",
        r"a slot of its 1 worker; 2 jobs are in slots",
    ),
    Case(
        "prompt prefix",
        behind_a_first,
        "prefix",
        r"the first job with its prompt prefix of m, \d+\.\d s at most",
        "nothing, its prompt is then read",
    ),
    Case("its time", later, "time", r"its time, in \d+\.\d s", "nothing", "their time, 1 of its jobs"),
)


@pytest.fixture(scope="module")
def shared(valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One worker with two slots for all cases."""
    with rig(valkey, 13, tmp_path_factory.mktemp("worker"), slots=2, lanes=CACHED) as up:
        yield up


@pytest.fixture
def up(shared: Rig) -> Iterator[Rig]:
    """The same, with nothing set and no job."""
    with nothing_set(shared):
        yield shared


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_a_reason_is_named_for_the_lane_and_for_the_job(up: Rig, case: Case) -> None:
    """The kind, the words and what to do are those of what holds it up, and nothing else is said to."""
    job = case.provoke(up)
    for found, words in (
        (_job(up.app, job, COMMAND), case.words),
        (_lanes(up.app, ["batch"], COMMAND)["batch"], case.of_lane or case.words),
    ):
        said = [each for each in found["waiting_for"] if each["kind"] == case.kind]
        assert len(said) == 1, found
        assert re.fullmatch(words, said[0]["words"]), said
        assert re.match(case.advice, said[0]["advice"]), said
        # A job that was refused is back in its lane for a while, which is true, too.
        assert {each["kind"] for each in found["waiting_for"]} <= {case.kind, "time"}


def test_every_kind_of_reason_is_in_the_table() -> None:
    """But for those that need no worker, or no broker: test_why_command.py has them."""
    assert set(get_args(Kind)) - {case.kind for case in CASES} == {"no_worker", "broker", "dead"}
