import dataclasses
from dataclasses import dataclass, field, replace
from itertools import combinations_with_replacement
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from kit.clock import ClockedRedis
from kit.fleet import Fleet
from kit.scheduler import Scheduler
from redis import Redis

from celery_app.budget import Budget, CallEnd, Cost, Reservation, Usage, budget_for
from celery_app.lanes import BATCH, CRITICAL, LANES, Lane
from celery_app.settings import Limits, Settings
from demo.simulator.limits import ApiLimits

# What DESIGN.md says of a bucket: the fraction of the limit that is used, and the seconds that can be saved up.
HEADROOM = 0.98
BURST = {"requests": 1, "input_tokens": 15, "output_tokens": 15}

# What the scripts say of debts: seconds of the limit at most; capacities at most, where a settlement makes them.
MOST_DEBT_S, MOST_SETTLED = 3_600, 4

# Seconds that a waiter may be late without its lane losing any of the rate.
LATE = 0.05

# Units: Lua and Python do not round alike, and the scripts let a millionth pass.
ROUNDING = 1e-3

limits = st.builds(
    Limits,
    rpm=st.integers(1, 3_000),
    itpm=st.none() | st.integers(100, 100_000),
    otpm=st.none() | st.integers(100, 100_000),
)
# No lane is owed a share here, so each leaves its floor.
UNBOOSTED = tuple(dataclasses.replace(lane, boost_after=None) for lane in LANES)

asks = st.tuples(
    st.just("ask"), st.sampled_from(LANES), st.integers(0, 30_000), st.integers(0, 3_000), st.integers(0, 5)
)
puts = st.tuples(st.just("put"), st.sampled_from(LANES), st.integers(0, 30_000), st.integers(0, 3_000))
claims = st.tuples(st.just("claim"), st.integers(1, 5))
settles = st.tuples(st.just("settle"), st.integers(0, 50), st.integers(0, 30_000), st.integers(0, 3_000))
unsents = st.tuples(st.just("unsent"), st.integers(0, 50))
passes = st.tuples(st.just("pass"), st.floats(0, 20))
whiles = st.lists(st.one_of(asks, asks, puts, puts, claims, claims, settles, unsents, passes), max_size=60)

examples = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


@dataclass
class Bucket:
    """A bucket as the design describes it, kept apart from the scripts."""

    rate: float
    capacity: float
    level: float = field(init=False)
    at: float = 0.0

    def __post_init__(self) -> None:
        self.level = self.capacity

    def refill(self, now: float) -> float:
        """Let what came in since be in it; give what is forgiven of a debt of more than an hour."""
        forgiven = max(0.0, -MOST_DEBT_S * self.rate - self.level)
        self.level = min(self.capacity, self.level + forgiven + (now - self.at) * self.rate)
        self.at = now
        return forgiven

    def settle(self, back: float) -> float:
        """Give back, or take up to the most that a settlement takes; return what that was."""
        before, least = self.level, min(self.level, -MOST_SETTLED * self.capacity)
        self.level = min(self.capacity, max(least, self.level + back))
        return max(back, self.level - before)

    def needed(self, cost: float, lane: Lane) -> float:
        """Give the least level at which a lane may have a cost."""
        own = min(cost, self.capacity)
        return max(own, min(own + lane.floor * self.capacity, self.capacity - self.rate * LATE))


@dataclass
class Witness:
    """Sees what is granted and given back, and knows how much may be."""

    buckets: dict[str, Bucket]
    # Moments, and what was granted then of each dimension; moments, a dimension, and what was given back then.
    granted: list[tuple[float, dict[str, float]]] = field(default_factory=list)
    returned: list[tuple[float, str, float]] = field(default_factory=list)

    def grant(self, now: float, lane: Lane, cost: dict[str, float]) -> None:
        """Check a grant against the levels, and book it."""
        for name, bucket in self.buckets.items():
            self._refill(name, now)
            if cost[name] > 0:
                assert bucket.level >= bucket.needed(cost[name], lane) - ROUNDING, (name, lane.name, bucket)
            bucket.level -= cost[name]
        self.granted.append((now, cost))

    def settle(self, now: float, estimate: dict[str, float], real: dict[str, float]) -> None:
        """Book what a settlement changes."""
        for name, bucket in self.buckets.items():
            self._refill(name, now)
            self.returned.append((now, name, bucket.settle(estimate[name] - real[name])))

    def _refill(self, name: str, now: float) -> None:
        self.returned.append((now, name, self.buckets[name].refill(now)))

    def check_windows(self) -> None:
        """Of any stretch of time: no more was granted than rate x time + burst, and what was given back.

        A stretch ends with a grant. That one may be larger than the bucket; none before it can be without the bucket
        having recovered since.
        """
        for name, bucket in self.buckets.items():
            grants = [(at, cost[name]) for at, cost in self.granted if cost[name] > 0]
            for (first, (start, _)), (last, (end, cost)) in combinations_with_replacement(enumerate(grants), 2):
                total = sum(cost for _, cost in grants[first : last + 1])
                back = sum(
                    max(0.0, given) for at, which, given in self.returned if which == name and start <= at <= end
                )
                most = bucket.rate * (end - start) + max(bucket.capacity, cost) + back
                assert total <= most + ROUNDING, name


def buckets_of(given: Limits) -> dict[str, Bucket]:
    """Return full buckets."""
    numbers = {"requests": given.rpm, "input_tokens": given.itpm, "output_tokens": given.otpm}
    rates = {name: number / 60 * HEADROOM for name, number in numbers.items() if number is not None}
    return {name: Bucket(rate, max(1.0, rate * BURST[name])) for name, rate in rates.items()}


def new_budget(redis: Redis, given: Limits) -> tuple[Any, Budget]:
    """Return a client with a clock, and a budget that nobody has used."""
    redis.flushdb()
    drawn_on = budget_for(Settings(limits=given), CRITICAL, "m")
    return ClockedRedis(redis), dataclasses.replace(drawn_on, lanes=UNBOOSTED)


def ask(client: Any, budget: Budget, lane: Lane, cost: Cost, name: str) -> Reservation:
    """Ask for a call that waits in its slot."""
    return budget.reserve(client, lane, replace(cost, cached=True), claim=(name, "slots:call"), waits=True)


@pytest.fixture
def redis(broker_url):
    """A client of a database of our own."""
    with Redis.from_url(broker_url) as client:
        yield client


@examples
@given(limits, whiles)
def test_no_bucket_ever_gives_more_than_it_has(redis, given, steps):
    """Whatever is asked, claimed and settled in any order: rate x time + burst at most, never below a lane's floor."""
    clock, budget = new_budget(redis, given)
    scheduler, witness, open_calls = Scheduler(clock), Witness(buckets_of(given)), dict[str, dict[str, float]]()
    jobs: dict[str, tuple[Lane, dict[str, float]]] = {}
    for number, step in enumerate(steps):
        if step[0] == "pass":
            clock.now = round(clock.now + step[1], 6)
        elif step[0] == "ask":
            _, lane, tokens, output, waiter = step
            cost = Cost(input_tokens=tokens, output_tokens=output)
            # As many calls wait as there are names; one that is granted is never asked for again.
            found = ask(clock, budget, lane, cost, f"{waiter}-{len(witness.granted)}")
            if found.granted:
                taken = {"requests": 1.0, "input_tokens": float(tokens), "output_tokens": float(output)}
                witness.grant(clock.now, lane, taken)
                open_calls[found.ticket] = taken
            else:
                assert found.wait_s > 0
        elif step[0] == "put":
            _, lane, tokens, output = step
            cost = Cost(input_tokens=tokens, output_tokens=output, cached=True)
            name = scheduler.put(budget, lane, f"job-{number}", cost)
            jobs[name] = lane, {"requests": 1.0, "input_tokens": float(tokens), "output_tokens": float(output)}
        elif step[0] == "claim":
            for held in scheduler.claim(step[1], lanes=UNBOOSTED):
                lane, taken = jobs.pop(held.name)
                witness.grant(clock.now, lane, taken)
                open_calls[held.job.ticket] = taken
        elif open_calls:
            ticket = list(open_calls)[step[1] % len(open_calls)]
            taken = open_calls.pop(ticket)
            real = dict.fromkeys(taken, 0.0)
            usage = None
            if step[0] == "settle":
                usage = Usage(step[2], step[3])
                real = {"requests": 1.0, "input_tokens": float(step[2]), "output_tokens": float(step[3])}
            assert budget.settle(clock, ticket, CallEnd(usage, outcome="answered" if usage else "unsent")).known
            witness.settle(clock.now, taken, real)
    witness.check_windows()


@examples
@given(limits, st.sampled_from(LANES), st.lists(st.integers(0, 30_000), min_size=1, max_size=30))
def test_a_lone_call_is_granted_when_it_was_told_and_not_before(redis, given, lane, jobs):
    """The wait is exact, whatever the limits and however large the call, up to an hour."""
    clock, budget = new_budget(redis, given)
    for number, tokens in enumerate(jobs):
        cost = Cost(input_tokens=tokens, output_tokens=tokens // 10)
        found = ask(clock, budget, lane, cost, str(number))
        while found.wait_s >= MOST_DEBT_S:  # nobody is told to wait for longer, so it has to ask again
            clock.now += found.wait_s
            found = ask(clock, budget, lane, cost, str(number))
        if found.granted:
            continue
        told, early = clock.now + found.wait_s, min(0.001, found.wait_s / 2)
        clock.now = told - early
        again = ask(clock, budget, lane, cost, str(number))
        assert not again.granted
        assert again.wait_s == pytest.approx(early, abs=1e-5)
        clock.now = told + 2e-6
        assert ask(clock, budget, lane, cost, str(number)).granted


#: Seconds after which a worker looks again, whatever it was told.
LOOKS_EVERY = 1.0


@examples
@given(limits, st.lists(st.tuples(st.sampled_from(LANES), st.integers(1, 30_000)), min_size=1, max_size=12))
def test_every_job_leaves_its_lane_in_the_end(redis, given, jobs):
    """No two lanes wait for each other: a worker that looks when it was told has all in the time that they cost."""
    clock, budget = new_budget(redis, given)
    scheduler, buckets = Scheduler(clock), buckets_of(given)
    seconds = sum(
        max(cost / buckets[name].rate for name, cost in (("requests", 1), ("input_tokens", tokens)) if name in buckets)
        for _, tokens in jobs
    )
    for lane, tokens in jobs:
        scheduler.put(budget, lane, cost=Cost(input_tokens=tokens, output_tokens=0, cached=True))
    left = len(jobs)
    while left:
        left -= len(scheduler.claim(len(jobs)))
        if left:
            assert scheduler.wait_s() > 0
            clock.now += scheduler.wait_s()
        # Twice: once to pay for the jobs before, once to fill up to the floor; and a second for coming one by one.
        assert clock.now <= 2 * seconds + 2 * 15 + len(jobs)


guesses = st.tuples(st.sampled_from(LANES), st.integers(1, 30_000), st.integers(0, 30_000), st.booleans())


@examples
@given(limits, st.lists(guesses, min_size=1, max_size=12))
def test_every_job_leaves_its_lane_whoever_dies(redis, given, jobs):
    """Estimates that are far too high, and calls that are killed while they wait in their slots, starve nobody."""
    clock, budget = new_budget(redis, given)
    scheduler, rates = Scheduler(clock), {name: bucket.rate for name, bucket in buckets_of(given).items()}
    seconds = sum(max(1 / rates["requests"], tokens / rates.get("input_tokens", tokens)) for _, tokens, _, _ in jobs)
    settling: list[tuple[float, str, Usage]] = []
    waiting: dict[str, Usage] = {}
    for number, (lane, estimate, real, dies) in enumerate(jobs):
        cost, usage = Cost(input_tokens=estimate, output_tokens=0, cached=True), Usage(min(real, estimate), 0)
        if not dies:
            waiting[scheduler.put(budget, lane, f"job-{number}", cost)] = usage
        elif (answer := ask(clock, budget, lane, cost, f"call-{number}")).granted:
            settling.append((clock.now + 3, answer.ticket, usage))
    while waiting:
        found = scheduler.claim(len(jobs))
        settling.extend((clock.now + 3, held.job.ticket, waiting.pop(held.name)) for held in found)
        look = clock.now + (min(scheduler.wait_s(), LOOKS_EVERY) if scheduler.wait_s() >= 0 else LOOKS_EVERY)
        clock.now = min(look, settling[0][0]) if settling else look
        while settling and settling[0][0] <= clock.now:
            _, ticket, usage = settling.pop(0)
            budget.settle(clock, ticket, CallEnd(usage))
        # As above, and those that died are waited for until they lapse.
        assert clock.now <= 2 * seconds + 2 * 15 + 5 * len(jobs)


def small_call() -> tuple[Cost, Usage]:
    """Return a call of which only the request counts."""
    return Cost(characters=400, max_tokens=64), Usage(100, 16)


class TestHiddenLimits:
    """Limits that nobody configured, found by a fleet against an API that enforces them."""

    def fleet(self, redis: Redis, per_second: int, **options: Any) -> Fleet:
        """Return a fleet with an endless batch backlog that knows nothing of its API."""
        clock, budget = new_budget(redis, Limits())
        fleet = Fleet(clock, budget, ApiLimits(rpm=per_second * 60), **options)
        fleet.keep_busy(BATCH, 30, small_call)
        return fleet

    @pytest.mark.slow
    def test_a_limit_that_is_in_no_header_is_found_and_held(self, redis):
        """From no limit at all; then lowered; then raised: within a minute at 92 % of it, with 3 % of refusals."""
        fleet = self.fleet(redis, 20)
        for per_second in (20, 8, 40):
            fleet.change(ApiLimits(rpm=per_second * 60))
            fleet.run(90)
            settled = fleet.until - 30
            assert fleet.used(settled, fleet.until, per_second) >= 0.92
            assert fleet.refused(settled, fleet.until) <= 0.03

    def test_a_limit_in_the_headers_is_used_from_the_first_answer_on(self, redis):
        """Hardly a refusal, even though all slots start at once and nothing is configured."""
        fleet = self.fleet(redis, 20, headers=True)
        fleet.run(60)
        assert fleet.refused(0, 60) <= 0.01
        assert fleet.used(2, 60, 20) >= 0.95

    def test_an_outage_costs_few_calls_and_is_over_when_it_is_over(self, redis):
        """Two probes per second for the whole fleet, and nine of ten of the rate within 5 s of the API's return."""
        fleet = self.fleet(redis, 20, headers=True)
        fleet.run(20)
        fleet.down = True
        fleet.run(30)
        assert sum(sent.status == 529 for sent in fleet.sent) <= 2 * 30 + 40
        fleet.down = False
        fleet.run(15)
        assert fleet.used(fleet.until - 10, fleet.until, 20) >= 0.9
