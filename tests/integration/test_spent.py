"""What calls have cost, written down by the script that settles them, at times that a test sets."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from kit.clock import START_S
from kit.scheduler import Scheduler

from celery_app.budget import Budget, CallEnd, Cost, Usage
from celery_app.budget.bill import Payer, bill_of
from celery_app.budget.reservation import Settlement
from celery_app.configuration.prices import Price
from celery_app.lanes import BATCH, LANES
from celery_app.metrics.spent import Spent
from celery_app.settings import Limits, Settings

#: 5,000 nanodollars for a token of input, 25,000 for one of output.
PRICE = Price.model_validate({"in": 5, "out": 25})
USAGE, USD = Usage(100, 10), 750_000

FREE = Budget("key:m", "m", Limits(), LANES, sharers=("critical", "normal", "batch"))


class Till:
    """Calls that are made and paid for, at a time that is set."""

    def __init__(self, scheduler: Scheduler, zone: str = "UTC") -> None:
        self.scheduler, self.client = scheduler, scheduler.client
        self.settings = Settings(prices={"m": PRICE}, time_zone=zone)

    def at(self, moment: datetime) -> None:
        """Set the server's clock."""
        self.client.now = moment.timestamp() - START_S

    def begin(self, cost: Cost = Cost(output_tokens=0)) -> str:  # noqa: B008 - frozen
        """Reserve a call; return its ticket."""
        self.scheduler.put(FREE, BATCH, cost=cost)
        (held,) = self.scheduler.claim()
        ticket: str = held.job.ticket
        return ticket

    def end(
        self, ticket: str, usage: Usage | None = USAGE, *, shipped: bool = False, model: str = "m", **payer: str
    ) -> Settlement:
        """Settle it."""
        whose = Payer("batch", model, payer.get("tenant", ""), payer.get("batch", ""))
        now = START_S + self.client.now
        used, bill = bill_of(self.settings, whose, usage, now, shipped=shipped)
        return FREE.settle(self.client, ticket, CallEnd(used), bill=bill)

    def pay(self, **how: Any) -> Settlement:
        """Make a call and settle it."""
        return self.end(self.begin(), **how)

    def of(self, day: str) -> Spent:
        """Return what was spent in a day."""
        return Spent.of(day, self.scheduler.raw.hgetall(f"lanes:spent:day:{day}").items())


@pytest.fixture
def till(scheduler):
    """A till in UTC, on the morning of 28 March 2027."""
    made = Till(scheduler)
    made.at(datetime(2027, 3, 28, 8, tzinfo=UTC))
    return made


def test_a_call_is_counted_for_all_whom_it_concerns(till):
    """Its day and its hour have it by lane, by model and by tenant."""
    till.pay(tenant="acme")
    till.pay(tenant="other")

    spent = till.of("2027-03-28")
    assert spent.total == (2, 2 * USD / 1e9, 0)
    assert spent.by["lane"] == {"batch": spent.total}
    assert spent.by["model"] == {"m": spent.total}
    assert spent.by["tenant"] == {"acme": (1, USD / 1e9, 0), "other": (1, USD / 1e9, 0)}
    (hour,) = till.scheduler.raw.keys("lanes:spent:hour:*")
    assert hour.decode().endswith(f":{int(datetime(2027, 3, 28, 8, tzinfo=UTC).timestamp()) // 3_600}")


def test_a_settlement_that_is_repeated_costs_nothing(till):
    """A worker that did not hear the answer settles again."""
    ticket = till.begin()
    assert till.end(ticket).known
    assert not till.end(ticket).known
    assert till.of("2027-03-28").total.calls == 1


def test_what_is_written_down_does_not_stay_for_ever(till):
    """An hour is kept for three days, a day for 41."""
    till.pay()
    raw = till.scheduler.raw
    assert 0 < raw.ttl(raw.keys("lanes:spent:hour:*")[0]) <= 3 * 86_400
    assert 0 < raw.ttl("lanes:spent:day:2027-03-28") <= 41 * 86_400


@pytest.mark.parametrize(
    ("midnight", "days"),
    [
        ("2027-03-27T23:00Z", ("2027-03-27", "2027-03-28")),
        ("2027-03-28T22:00Z", ("2027-03-28", "2027-03-29")),
        ("2027-10-30T22:00Z", ("2027-10-30", "2027-10-31")),
        ("2027-10-31T23:00Z", ("2027-10-31", "2027-11-01")),
    ],
)
def test_a_day_ends_at_midnight_of_its_zone(scheduler, midnight, days):
    """By the server's clock, on the days on which Berlin goes to summer time and back, too."""
    till, first = Till(scheduler, "Europe/Berlin"), datetime.fromisoformat(midnight)
    for moment in (first - timedelta(seconds=1), first):
        till.at(moment)
        till.pay()
    assert [till.of(day).total.calls for day in days] == [1, 1]


def test_a_call_of_which_nobody_says_what_it_used_costs_what_it_reserved(till):
    """It may have been answered, and paid for."""
    till.end(till.begin(Cost(input_tokens=40, output_tokens=8)), None)
    assert till.of("2027-03-28").total.usd == (40 * 5_000 + 8 * 25_000) / 1e9


@pytest.mark.parametrize("how", [{"shipped": True}, {"usage": Usage(100, 10, in_batch=True)}])
def test_a_message_batch_costs_half_and_saves_the_other(till, how):
    """Whether its worker says so, or the API's usage."""
    till.pay(**how)
    assert till.of("2027-03-28").total == (1, USD / 2e9, USD / 2e9)


def test_a_model_without_a_price_is_told_of(till):
    """Its calls are counted, and cost nothing that anybody knows."""
    till.pay(model="unheard")
    spent = till.of("2027-03-28")
    assert spent.unpriced == {"unheard": 1}
    assert spent.total == (1, 0, 0)


def test_more_tenants_than_are_told_apart_are_counted_as_others(till):
    """Anybody may name tenants; the lanes' sums stay right."""
    day = "lanes:spent:day:2027-03-28"
    till.scheduler.raw.hset(day, mapping={f"usd|tenant|{number}": 1 for number in range(5_000)})
    for number in range(3):
        till.pay(tenant=f"late-{number}")
    spent = till.of("2027-03-28")
    assert till.scheduler.raw.hlen(day) < 5_020
    assert spent.by["tenant"]["(others)"] == (3, 3 * USD / 1e9, 0)
    assert spent.by["lane"]["batch"] == (3, 3 * USD / 1e9, 0)


def test_a_batch_has_its_sum(till):
    """As long as it is known; one that is over long ago does not come back."""
    till.scheduler.raw.hset("lanes:batch:b", "queued", 2)
    till.pay(batch="b")
    till.pay(batch="b", shipped=True)
    till.pay(batch="gone")
    assert till.scheduler.raw.hmget("lanes:batch:b", "usd", "saved") == [b"1125000", b"375000"]
    assert not till.scheduler.raw.exists("lanes:batch:gone")


@pytest.mark.parametrize("cap", ["all|", "lane|batch", "tenant|acme", "tenant|*"])
def test_the_call_that_uses_up_four_fifths_of_a_cap_is_told_so(till, cap):
    """Once a day, whoever's cap it is."""
    till.scheduler.raw.hset("lanes:caps", cap, 5 * USD)
    name = cap.replace("*", "acme")
    for day in (28, 29):
        till.at(datetime(2027, 3, day, 8, tzinfo=UTC))
        warnings = [till.pay(tenant="acme").warnings for _ in range(6)]
        expected = (name, 4 * USD, 5 * USD, f"2027-03-{day}")
        assert warnings == [(), (), (), (expected,), (), ()]


def test_a_batch_with_a_cap_is_warned_of_once(till):
    """It has no day."""
    till.scheduler.raw.hset("lanes:batch:b", "lanes_cap", 2 * USD)
    warnings = [till.pay(batch="b").warnings for _ in range(3)]
    assert warnings == [(), (("batch|b", 2 * USD, 2 * USD, ""),), ()]


def test_without_prices_nothing_is_written_down(scheduler):
    """No key more than before."""
    till = Till(scheduler)
    till.settings = Settings()
    before = {key for key in scheduler.raw.keys("lanes:*") if b"budget" not in key}
    assert till.pay().warnings == ()
    assert not scheduler.raw.keys("lanes:spent:*")
    assert before <= set(scheduler.raw.keys("lanes:*"))
