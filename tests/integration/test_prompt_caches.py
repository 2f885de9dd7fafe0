"""Jobs whose prompts begin alike wait for the first of them: by the scheduler's own scripts, at a clock that is set."""

from __future__ import annotations

import hashlib
import itertools
from typing import TYPE_CHECKING, Any

import pytest
from kit.scheduler import Scheduler

from celery_app.budget import Budget, Cost, Usage
from celery_app.lanes import BATCH, CRITICAL, LANES, NORMAL, Lane
from celery_app.metrics.shortage import Shortage, explain_arguments
from celery_app.scheduler.scripts import CANCEL, EXPLAIN
from celery_app.settings import Limits

if TYPE_CHECKING:
    from kit.script_client import Held

#: Characters of the beginning that is shared, and of the rest; a budget that nobody has called takes 0.3 tokens each.
SHARED, REST = 60_000, 1_000

#: Of all of it, and of the rest alone.
ALL_TOKENS, REST_TOKENS = 18_300, 300

#: Seconds that anybody waits at most, that the API keeps a beginning, and that nobody waits where it was in vain.
MOST_WARMING, KEPT, IN_VAIN = 10, 300, 60

#: Jobs that one look goes past.
LOOKS = 64


def prefix(name: str, kept_s: int = KEPT) -> str:
    """Return the fact of a beginning."""
    return f"{hashlib.sha256(name.encode()).hexdigest()[:32]} {kept_s * 1000} {SHARED} 0"


#: Two beginnings.
A, B = prefix("a"), prefix("b")

READ = Usage(REST_TOKENS, 10, cache_read=18_000, cache_created=0)
CREATED = Usage(ALL_TOKENS, 10, cache_read=0, cache_created=18_000)
NOT_KEPT = Usage(ALL_TOKENS, 10, cache_read=0, cache_created=0)


def budget(itpm: int | None = None, **options: Any) -> Budget:
    """Return a model's budget."""
    return Budget("key:m", "m", Limits(itpm=itpm), LANES, sharers=tuple(lane.name for lane in LANES), **options)


FREE = budget()


class Bench:
    """Jobs with beginnings, and workers that claim them."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler, self.of = scheduler, {}  # type: ignore[var-annotated]

    def put(self, begins: str, *names: str, lane: Lane = BATCH, draws_on: Budget = FREE, **facts: Any) -> None:
        """Put jobs into a lane."""
        for name in names:
            cost = Cost(characters=SHARED + REST, output_tokens=10, cached=bool(begins))
            self.scheduler.put(draws_on, lane, name, cost, prefix=begins, **facts)
            self.of[name] = begins

    def claim(self, most: int = 100, **options: Any) -> list[Held]:
        """Claim jobs."""
        return list(self.scheduler.claim(most, **options))

    def names(self, most: int = 100, **options: Any) -> list[str]:
        """Claim jobs; return their names."""
        return [held.name for held in self.claim(most, **options)]

    def answer(
        self, held: Held, usage: Usage | None = CREATED, draws_on: Budget = FREE, outcome: Any = "answered"
    ) -> None:
        """Settle a call, and end its job."""
        self.scheduler.settle(draws_on, held, usage, outcome, prefix=self.of[held.name])
        self.scheduler.scripts.ack(held)

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.scheduler.client.now += seconds

    def explain(self, name: str = "") -> list[Shortage]:
        """Say what a job, or each lane, waits for."""
        return list(map(Shortage.of, EXPLAIN.run(self.scheduler.client, (), explain_arguments("", LANES, name))))


@pytest.fixture
def bench(scheduler):
    """An empty one."""
    return Bench(scheduler)


class TestTheFirst:
    """The others follow its answer, or go after a while; where it came to nothing, the next of them is first."""

    def test_the_others_follow_its_answer(self, bench):
        """All at once, in their order, and another worker is woken for them."""
        bench.put(A, "a1", "a2", "a3")
        [first] = bench.claim()
        assert first.name == "a1"
        assert bench.names() == []
        bench.scheduler.raw.delete("lanes:bell:batch")
        bench.answer(first)
        assert bench.scheduler.raw.llen("lanes:bell:batch") == 1
        assert bench.names() == ["a2", "a3"]

    def test_the_others_follow_the_first_byte_of_a_stream(self, bench):
        """The API has read the prompt by then, however long the answer takes."""
        bench.put(A, "a1", "a2")
        [first] = bench.claim()
        bench.scheduler.settle(FREE, first, outcome="begun", prefix=A)
        assert bench.names() == ["a2"]

    def test_they_wait_for_no_longer_than_a_first_one_usually_takes(self, bench):
        """Until one was answered, for ten seconds; the worker is told when to look."""
        bench.put(A, "a1", "a2")
        bench.claim()
        bench.claim()
        assert bench.scheduler.wait_s() == pytest.approx(MOST_WARMING, abs=0.01)
        bench.wait(MOST_WARMING)
        assert bench.names() == ["a2"]
        bench.put(B, "b1", "b2")
        [first] = bench.claim()
        bench.wait(1.5)
        bench.answer(first)
        bench.put(prefix("c"), "c1", "c2", "c3")
        assert bench.names() == ["b2", "c1"]
        assert bench.names() == []
        assert bench.scheduler.wait_s() == pytest.approx(3, abs=0.01)

    @pytest.mark.parametrize("ending", ["failed", "killed", "requeued", "cancelled"])
    def test_the_next_is_first_where_it_came_to_nothing(self, bench, ending):
        """At once, and again alone; a dead worker's by the end of its lease, when nobody has waited for it any more."""
        bench.put(A, "a1", "a2", "a3")
        [first] = bench.claim()
        scripts = bench.scheduler.scripts
        if ending == "failed":
            bench.answer(first, None, outcome="failed")
        elif ending == "killed":
            bench.wait(1)
            bench.scheduler.claim(0)
            bench.scheduler.wait_beside(20)
        elif ending == "requeued":
            scripts.requeue(first, delay_ms=60_000)
        else:
            assert CANCEL.run(bench.scheduler.client, (), ["", "a1", 60]) == 1
            bench.answer(first, None, outcome="unsent")
        expected = ["a1"] if ending == "killed" else ["a2"]
        assert bench.names() == expected
        assert bench.names() == []

    def test_nobody_waits_for_a_fourth_first(self, bench):
        """Three came to nothing: a prompt that the API refuses does not make a lane go one by one."""
        bench.put(A, *(f"a{n}" for n in range(9)))
        for n in range(3):
            [first] = bench.claim()
            assert first.name == f"a{n}"
            bench.answer(first, None, outcome="failed")
        assert len(bench.names()) == 6
        bench.wait(IN_VAIN)
        bench.put(A, "late-1", "late-2")
        assert bench.names() == ["late-1"]

    def test_nobody_waits_where_the_api_keeps_nothing(self, bench):
        """A beginning that is too short for it, a gateway without a cache: that is known from the first answer."""
        bench.put(A, "a1", "a2", "a3")
        [first] = bench.claim()
        bench.answer(first, NOT_KEPT)
        [second] = bench.claim(1)
        assert float(second.job.ticket.split()[4]) == pytest.approx(ALL_TOKENS, rel=0.01)
        assert bench.names() == ["a3"]

    def test_a_beginning_is_forgotten_when_the_api_has(self, bench):
        """Five minutes after a call left that has used it; the next one is first again."""
        bench.put(A, "a1", "a2")
        bench.answer(bench.claim(1)[0])
        bench.wait(KEPT - 1)
        [second] = bench.claim(1)
        bench.answer(second, READ)
        bench.put(A, "a3", "a4", "a5")
        bench.wait(KEPT - 1)
        assert bench.names(1) == ["a3"]
        bench.wait(2)
        assert bench.names() == ["a4"]

    def test_another_key_of_the_api_has_another_cache(self, bench):
        """Lanes with keys of their own do not wait for each other."""
        other = Budget("other:m", "m", Limits(), LANES, sharers=("critical",))
        bench.put(A, "a1", "a2")
        bench.put(A, "c1", "c2", lane=CRITICAL, draws_on=other)
        assert sorted(bench.names()) == ["a1", "c1"]

    def test_of_two_beginnings_the_shared_one_counts(self, bench):
        """One that each job has of its own behind it holds up nobody; what is kept of both is not reserved."""
        longer = [f"{A},{prefix(name).replace(str(SHARED), str(SHARED + REST))}" for name in "xyz"]
        for name, begins in zip("xyz", longer, strict=True):
            bench.put(begins, name)
        [first] = bench.claim()
        assert first.name == "x"
        bench.answer(first)
        second, third = bench.claim()
        assert round(float(second.job.ticket.split()[4]), -2) == REST_TOKENS
        bench.answer(second)
        bench.put(longer[1], "again")
        [again] = bench.claim()
        assert float(again.job.ticket.split()[4]) == 0
        bench.answer(third)


class TestOthers:
    """Whoever does not share the beginning goes on as if those that wait were not there."""

    def test_others_of_the_same_line_pass(self, bench):
        """With another beginning, and with none; in their order, and the next look goes no way twice."""
        bench.put(A, "a1", "a2", "a3")
        bench.put("", "x1")
        bench.put(B, "b1", "b2")
        bench.put("", "x2")
        assert bench.names() == ["a1", "x1", "b1", "x2"]
        bench.put("", "x3")
        assert bench.names() == ["x3"]

    def test_others_pass_a_line_that_is_longer_than_one_look(self, bench):
        """Each look begins where the last one ended."""
        bench.put(A, *(f"a{n}" for n in range(6 * LOOKS)))
        bench.put("", "x1")
        looks = list(itertools.islice(iter(bench.names, ["x1"]), 7))
        assert looks[0] == ["a0"]
        assert 2 < len(looks) < 7

    def test_one_that_comes_back_before_them_is_seen(self, bench):
        """It stands where it stood, in front of those that were passed."""
        bench.put("", "x0")
        [back] = bench.claim()
        bench.put(A, "a1", "a2", "a3")
        assert bench.names() == ["a1"]
        assert bench.names() == []
        bench.scheduler.scripts.requeue(back)
        assert bench.names() == ["x0"]

    def test_other_tenants_pass(self, bench):
        """The jobs of one wait, those of the other go on."""
        bench.put(A, "a1", "a2", tenant="ann")
        bench.put("", "x1", "x2", tenant="bob")
        assert sorted(bench.names()) == ["a1", "x1", "x2"]

    def test_those_that_wait_take_no_room_from_others(self, bench):
        """What they will need of the budget is not kept for them: nobody knows yet how much that is."""
        narrow = budget(itpm=10 * (ALL_TOKENS + 1_000))
        bench.put(A, "a1", "a2", draws_on=narrow, lane=NORMAL)
        bench.put("", "x1", draws_on=narrow)
        assert bench.names() == ["a1"]
        bench.wait(5)  # room for one in batch, above its floor, and not for two
        assert bench.names() == ["x1"]

    def test_two_lanes_wait_for_one_first(self, bench):
        """They share the key; the more important lane has it, and within one claim."""
        bench.put(A, "b1", "b2")
        bench.put(A, "n1", lane=NORMAL)
        bench.put("", "x1")
        assert bench.names() == ["n1", "x1"]


class TestBudget:
    """What the API reads from its cache is not reserved."""

    def test_the_first_is_reserved_whole_and_the_others_without_the_beginning(self, bench):
        """So many more of them leave at once."""
        narrow = budget(itpm=4 * (ALL_TOKENS + 1_000))
        bench.put(A, *(f"a{n}" for n in range(6)), draws_on=narrow)
        [first] = bench.claim()
        assert float(first.job.ticket.split()[4]) == ALL_TOKENS
        bench.answer(first, draws_on=narrow)
        bench.wait(15)
        others = bench.claim()
        assert len(others) == 5
        assert {round(float(held.job.ticket.split()[4]), -2) for held in others} == {REST_TOKENS}

    def test_what_a_character_costs_is_learned_from_all_of_the_prompt(self, bench):
        """From what was read, too: a job without the beginning costs no less for it."""
        bench.put(A, *(f"a{n}" for n in range(20)))
        bench.answer(bench.claim()[0])
        bench.wait(MOST_WARMING)  # the first seconds of a budget are slow
        for held in bench.claim():
            bench.answer(held, READ)
        bench.put("", "x1")
        [other] = bench.claim()
        assert float(other.job.ticket.split()[4]) == pytest.approx(ALL_TOKENS, rel=0.02)


class TestExplained:
    """What waits says so."""

    def test_a_job_and_its_lane_say_what_they_wait_for(self, bench):
        """The job that waits, not the one that passes it; the lane only if all do."""
        bench.put(A, "a1", "a2")
        bench.claim()
        [row] = bench.explain("a2")
        assert (row.state, row.short) == ("queued", "prefix")
        assert bench.explain()[2].short == "prefix"
        bench.put("", "x1")
        assert bench.explain()[2].short == ""
        assert bench.explain("a2")[0].short == "prefix"
        assert bench.explain("x1")[0].short == ""


def test_without_a_beginning_there_is_no_key(bench):
    """Nobody pays for what nobody uses."""
    bench.put("", "x1", "x2")
    for held in bench.claim():
        bench.answer(held)
    assert [key for key in bench.scheduler.raw.scan_iter() if b"prefix" in key or b"passed" in key] == []
