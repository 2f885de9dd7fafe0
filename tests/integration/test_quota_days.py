"""Windows of a day end at midnight by the server's clock, and a day's limit keeps its floors, on the real scripts."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from kit.clock import START_S
from kit.money import Money, used
from redis import Redis

from celery_app.budget import Cost
from celery_app.budget.quota import day_ends, write_caps
from celery_app.lanes import BATCH, CRITICAL
from celery_app.scheduler.scripts import CONTROL
from celery_app.settings import Limits, Settings


@pytest.fixture
def redis(broker_url):
    """A client of an empty database."""
    with Redis.from_url(broker_url) as client:
        yield client


def until_midnight(zone: str) -> float:
    """Return the seconds from the start of the clock to the first midnight."""
    return day_ends(zone, START_S, 1)[0] / 1000 - START_S


def test_a_tenant_is_back_when_its_window_ends(redis):
    """At midnight by the server's clock, though others have jobs before it."""
    money = Money(redis, tenant_usd_per_day={"ann": 1})
    for i in range(3):
        money.add(f"ann-{i}", tenant="ann")
    money.add("bob-0", tenant="bob")
    assert sorted(money.names()) == ["ann-0", "bob-0"]
    assert money.names() == []
    money.client.now += until_midnight("UTC") - 0.001
    assert money.names() == []
    money.client.now += 0.002
    for i in range(9):
        money.add(f"bob-{i + 1}", tenant="bob")
    assert "ann-1" in money.names(2)


ZONES = (
    ("Europe/Berlin", "2026-03-29", 23),
    ("Europe/Berlin", "2026-10-25", 25),
    ("America/New_York", "2026-11-01", 25),
)


@pytest.mark.parametrize(("zone", "day", "hours"), ZONES)
def test_a_day_has_as_many_hours_as_its_zone_says(redis, zone, day, hours):
    """Where summer time begins or ends, a window has 23 or 25 hours, by the server's clock and no worker's."""
    begin = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone)).timestamp()
    money = Money(redis)
    money.client.now = begin - START_S + 1
    write_caps(money.client, "", Settings(time_zone=zone, usd_per_day=1))
    money.settings = Settings(limits=Limits(rpm=1_000_000), time_zone=zone, usd_per_day=1)
    for i in range(3):
        money.add(f"job-{i}")
    assert money.names() == ["job-0"]
    money.client.now = begin - START_S + hours * 3600 - 0.5
    assert money.names() == []
    money.client.now += 1
    assert money.names() == ["job-1"]


def test_days_end_at_midnight_where_a_change_skips_or_repeats_it():
    """Of zones that change at midnight the day ends with the change; a date that was skipped has none."""
    skipped = datetime(2018, 11, 3, 12, tzinfo=UTC).timestamp()  # Sao Paulo: 00:00 -> 01:00 on the 4th
    assert day_ends("America/Sao_Paulo", skipped, 1) == [datetime(2018, 11, 4, 3, tzinfo=UTC).timestamp() * 1000]
    samoa = datetime(2011, 12, 29, 12, tzinfo=UTC).timestamp()  # there was no 30th
    ends = day_ends("Pacific/Apia", samoa, 3)
    assert ends == sorted(set(ends))


def test_days_go_on_when_the_list_of_them_is_at_its_end(redis):
    """No worker was started for more than a year: a day has 24 hours then."""
    money = Money(redis, usd_per_day=1, time_zone="Europe/Berlin")
    money.client.now = 500 * 86_400
    for i in range(2):
        money.add(f"job-{i}")
    assert money.names() == ["job-0"]
    money.client.now += 86_400
    assert money.names() == ["job-1"]


def test_what_is_settled_after_midnight_belongs_to_the_day_before(redis):
    """The next day's money is not touched by it."""
    money = Money(redis, usd_per_day=5)
    money.add("late", 400)
    (held,) = money.claim()
    money.client.now = until_midnight("UTC") + 1
    money.add("early", 100)
    assert money.names() == ["early"]
    money.settle(money.budget(), held, used(9_000))
    assert money.spent("all|") == 100


@pytest.mark.parametrize(("limit", "tokens"), [("rpd", 0), ("itpd", 100)])
def test_batch_alone_leaves_of_a_day_what_its_floor_keeps(redis, limit, tokens):
    """At once it may have half of the day's limit, and the rest as the day goes by; critical finds its part."""
    most = 100 * max(1, tokens)
    money = Money(redis, limits=Limits(rpm=1_000_000, itpm=100_000_000, **{limit: most}))
    money.client.now = until_midnight("UTC")
    price = Cost(input_tokens=tokens, output_tokens=0)
    for i in range(150):
        money.put(money.budget(), BATCH, f"job-{i}", price)
    assert len(money.names()) == 50
    assert money.why("job-70")[0] == {"rpd": "requests_day", "itpd": "input_tokens_day"}[limit]
    money.client.now += 43_200
    assert len(money.names()) == 25
    for i in range(10):
        money.put(money.budget(), CRITICAL, f"chat-{i}", price)
    assert [name for name in money.names() if name.startswith("chat")] == [f"chat-{i}" for i in range(10)]
    money.client.now += 43_199
    money.names()
    assert 99 <= int(float(redis.hget(f"lanes:quota:model|{money.budget().name}", "requests"))) <= 100
    money.client.now += 2
    assert len(money.names()) == 50


def test_a_limit_of_a_day_can_be_set_while_all_runs(redis):
    """Beside those per minute, for the models of a pattern."""
    money = Money(redis)
    for i in range(5):
        money.put(money.budget(), CRITICAL, f"chat-{i}")
    CONTROL.run(money.client, (), ("", "ann", "model|rpd|*", 2, 0))
    assert money.names() == ["chat-0", "chat-1"]
    assert money.why("chat-2")[0] == "requests_day"
    CONTROL.run(money.client, (), ("", "ann", "model|rpd|*", "", 0))
    assert len(money.names()) == 3
