"""In no order of what may happen do calls cost more than their caps allow, and no job waits for a cap that has room."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from kit.clock import START_S
from kit.money import DOLLAR, Money, cost, used
from kit.script_client import Held
from redis import Redis

from celery_app.budget import CallEnd
from celery_app.lanes import BATCH, CRITICAL, LANES, NORMAL

ZONE = "Europe/Berlin"

#: Where the clock starts: noon before summer time begins, before it ends, and on a day like others.
STARTS = [
    datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=ZoneInfo(ZONE)).timestamp() - START_S
    for day in ("2027-03-27", "2027-10-30", "2027-06-01")
]

#: Cents that a job is said to cost at most.
MOST = 300

#: Dollars that each cap allows at first.
CAPS = {"usd_per_day": 12, "tenant_usd_per_day": {"ann": 5, "*": 7}}

cents = st.integers(0, MOST)
puts = st.tuples(st.just("put"), st.sampled_from(LANES), st.sampled_from(["", "ann", "bob"]), st.integers(0, 3), cents)
calls = st.tuples(st.just("call"), st.sampled_from(LANES), cents)
claims = st.tuples(st.just("claim"), st.integers(1, 5))
settles = st.tuples(st.just("settle"), st.integers(0, 50), st.integers(0, 2 * MOST), st.integers(1, 2))
returns = st.tuples(st.just("give_back"), st.integers(0, 50), st.integers(1, 2))
losses = st.tuples(st.just("lose"), st.integers(0, 50))
passes = st.tuples(st.just("pass"), st.floats(0, 50_000))
sets = st.tuples(
    st.just("set"),
    st.sampled_from(["all|", "lane|batch", "lane|critical", "tenant|bob", "tenant|ann", "batch|b1"]),
    st.none() | st.integers(0, 15),
)
moves = st.one_of(puts, puts, puts, calls, claims, claims, claims, settles, settles, returns, losses, passes, sets)

examples = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


@dataclass
class Call:
    """One that was let go: what it counts for, in which day, and the cents that it counts with by now."""

    scopes: list[str]
    day: str
    cents: int
    ticket: str
    held: Held | None = None
    is_open: bool = True


@dataclass
class World:
    """What happens, and what may, kept apart from the scripts."""

    money: Money
    caps: dict[str, int] = field(default_factory=lambda: {"all|": 1200, "tenant|ann": 500, "tenant|bob": 700})
    jobs: dict[str, tuple[Any, list[str], int]] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)

    @property
    def day(self) -> str:
        """Today, where the operators live."""
        return f"{datetime.fromtimestamp(START_S + self.money.client.now, ZoneInfo(ZONE)):%F}"

    def spent(self, scope: str) -> int:
        """Cents: of a batch for good, of any other scope today."""
        return sum(
            call.cents
            for call in self.calls
            if scope in call.scopes and (scope[:6] == "batch|" or call.day == self.day)
        )

    def grant(self, lane: Any, scopes: list[str], price: int, ticket: str, held: Held | None = None) -> None:
        """Check that a call may go, and count it."""
        for scope in covering(lane, scopes):
            if scope in self.caps:
                assert self.spent(scope) + price <= self.caps[scope], (
                    scope,
                    self.spent(scope),
                    price,
                    self.caps[scope],
                )
        self.calls.append(Call(scopes, self.day, price, ticket, held))

    def open(self, which: int) -> Call | None:
        """One of the calls in flight."""
        found = [call for call in self.calls if call.is_open]
        return found[which % len(found)] if found else None

    def put(self, lane: Any, tenant: str, batch: int, price: int) -> None:
        """A job comes in, perhaps of a batch that may cost three dollars."""
        name, of = f"job-{len(self.jobs)}", (f"b{batch}", 3 * DOLLAR) if batch else ("", 0)
        self.money.add(name, price, lane, tenant=tenant, batch=of)
        scopes = [
            "all|",
            f"lane|{lane.name}",
            *([f"tenant|{tenant}"] if tenant else []),
            *([f"batch|{of[0]}"] if batch else []),
        ]
        if batch:
            self.caps.setdefault(f"batch|{of[0]}", 300)
        self.jobs[name] = (lane, scopes, price)

    def call(self, lane: Any, price: int) -> None:
        """A call without a job asks."""
        found = self.money.budget().reserve(
            self.money.client, lane, cost(price), claim=(f"c{len(self.calls)}", "p:call")
        )
        if found.granted:
            self.grant(lane, ["all|", f"lane|{lane.name}"], price, found.ticket)

    def claim(self, most: int) -> list[Held]:
        """A worker claims."""
        claimed = self.money.claim(most)
        for held in claimed:
            lane, scopes, price = self.jobs[held.name]
            self.grant(lane, scopes, price, held.job.ticket, held)
        return list(claimed)

    def settle(self, which: int, price: int, times: int) -> None:
        """A call is answered, and it may say so twice."""
        if call := self.open(which):
            for _ in range(times):
                self.money.budget().settle(self.money.client, call.ticket, used_end(price))
            call.cents, call.is_open = price, False

    def give_back(self, which: int, times: int) -> None:
        """A job goes back to its place, its call not made."""
        call = self.open(which)
        if call is not None and call.held is not None:
            done = [self.money.scripts.requeue(call.held) for _ in range(times)]
            if done[0]:
                call.cents, call.is_open = 0, False

    def lose(self, which: int) -> None:
        """A worker dies with what it has: its estimates stand until somebody says what was used."""
        call = self.open(which)
        if call is not None and call.held is not None:
            self.money.wait_beside(20)
            for each in self.calls:
                each.held = None

    def set(self, name: str, dollars: int | None) -> None:
        """An operator sets a cap."""
        self.money.set_cap(name, dollars)
        given_before = {"all|": 1200, "tenant|ann": 500, "tenant|bob": 700, "batch|b1": 300}
        if dollars is not None:
            self.caps[name] = dollars * 100
        elif name in given_before:
            self.caps[name] = given_before[name]
        else:
            self.caps.pop(name, None)

    def check_nobody_waits_for_nothing(self) -> None:
        """With all that may go gone, whatever is left has a cap without room for the dearest job."""
        for _ in range(60):
            if not self.claim(5) and self.money.scripts.look_ms != 0:
                break
        for name, (lane, scopes, _) in self.jobs.items():
            if any(self.money.raw.zscore(key, name) is not None for key in self.money.raw.keys("lanes:line:*")) or any(
                self.money.raw.zscore(key, name) is not None for key in self.money.raw.keys("lanes:parked:*:*")
            ):
                short = [s for s in covering(lane, scopes) if s in self.caps and self.spent(s) + MOST > self.caps[s]]
                assert short, f"{name} waits for nothing: {[(s, self.spent(s), self.caps.get(s)) for s in scopes]}"


def used_end(price: int) -> Any:
    """Return the end of a call that has cost so many cents."""
    return CallEnd(used(price))


def covering(lane: Any, scopes: list[str]) -> list[str]:
    """Return the scopes whose caps pause a call: of the most important lane its own, and the batch's."""
    return [scope for scope in scopes if lane is not CRITICAL or scope.startswith(("lane|", "batch|"))]


@pytest.fixture
def redis(broker_url):
    """A client of an empty database."""
    with Redis.from_url(broker_url) as client:
        yield client


@examples
@given(start=st.sampled_from(STARTS), happens=st.lists(moves, min_size=25, max_size=60))
def test_no_more_is_spent_than_the_caps_allow(redis, start, happens):
    """Each call that leaves fits into what its caps have left: true costs, and estimates of those in flight."""
    redis.flushdb()
    money = Money(redis, start=start, time_zone=ZONE, **CAPS)
    world = World(money)
    for move, *arguments in happens:
        if move == "pass":
            money.client.now += arguments[0]
        else:
            getattr(world, move)(*arguments)
    world.check_nobody_waits_for_nothing()


def test_the_property_can_fail(redis):
    """A witness that is told of a smaller cap finds fault."""
    world = World(Money(redis, start=STARTS[2], time_zone=ZONE, **CAPS))
    world.put(NORMAL, "ann", 0, 300)
    world.put(BATCH, "ann", 0, 200)
    world.caps["tenant|ann"] = 499
    with pytest.raises(AssertionError):
        world.claim(5)
