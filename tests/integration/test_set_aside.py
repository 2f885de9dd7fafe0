"""What a cap has set aside, on the real scripts: it stands in nobody's way, and it comes back."""

from typing import Any

import pytest
from kit.money import DOLLAR, Money
from redis import Redis

from celery_app.budget.quota import write_caps
from celery_app.lanes import BATCH
from celery_app.scheduler.scripts import CANCEL, PRESENT
from celery_app.settings import Settings

#: A prefix as `prefix_of` has it: whose first job the others wait for.
PREFIX = "a" * 32 + " 300000 60000 0"


@pytest.fixture
def redis(broker_url):
    """A client of an empty database."""
    with Redis.from_url(broker_url) as client:
        yield client


def test_a_tenant_at_its_cap_is_not_looked_for_behind_those_that_wait_for_a_prefix(redis):
    """Nobody may go then, and the worker sleeps."""
    money = Money(redis, tenant_usd_per_day={"ann": 1, "*": 1000})
    money.add("ann-0", tenant="ann")
    assert money.names() == ["ann-0"]
    for i in range(5):
        money.add(f"bob-{i}", tenant="bob", prefix=PREFIX)
    assert money.names() == ["bob-0"]
    money.add("ann-1", tenant="ann")
    money.names()
    for has_suspect in (False, True):
        assert money.names(has_suspect=has_suspect) == []
        assert money.scripts.look_ms > 0


def parked(redis, jobs: int) -> Money:
    """Return a lane with so many jobs of batch b, of which doc-0 has used up what that may cost."""
    money = Money(redis)
    for i in range(jobs + 1):
        money.add(f"doc-{i}", batch=("b", DOLLAR))
    assert money.names() == ["doc-0"]
    while money.scripts.look_ms == 0:
        assert money.names() == []
    assert redis.zcard("lanes:parked:batch:b") == jobs
    return money


def give_signs(money: Money, number: int = 1) -> None:
    """A worker of the lane gives so many signs of life."""
    for _ in range(number):
        PRESENT.run(money.client, (), ("", "worker", "batch"))


def test_a_cancelled_batch_ends_with_all_that_was_set_aside(redis):
    """Its jobs go out, to be told that they are cancelled; without that they stay where they are."""
    money = parked(redis, 300)
    give_signs(money)
    assert redis.zcard("lanes:parked:batch:b") == 300
    redis.set("lanes:cancel:b", 1)
    give_signs(money, 2)
    ended = money.claim(1000)
    assert [held.name for held in ended] == [f"doc-{i}" for i in range(1, 301)]
    assert all(held.cancelled for held in ended)
    assert not redis.exists("lanes:parked:batch", "lanes:parked:batch:b")


def test_a_batch_with_a_raised_cap_returns_whatever_has_become_of_its_first_jobs(redis):
    """They were cancelled before they went, so none of them brought the next."""
    money = parked(redis, 100)
    money.set_cap("batch|b", 1000)
    left = redis.zcard("lanes:parked:batch:b")
    assert left > 0
    for i in range(1, 101 - left):
        assert CANCEL.run(money.client, (), ("", f"doc-{i}", 60))
    assert money.names() == []
    give_signs(money)
    assert money.names() == [f"doc-{i}" for i in range(101 - left, 101)]


def test_an_older_workers_mend_changes_no_number(redis):
    """It does not know of the place, and puts a job into its tenant's line, too, without counting it."""
    money = parked(redis, 3)
    redis.zadd("lanes:line:batch:1:m:", {"doc-2": 3})
    redis.zadd("lanes:tenants:batch:m", {"": 0})
    redis.sadd("lanes:models:batch", "m")
    assert money.names() == []
    assert money.scripts.places("batch") == 3
    assert redis.zcard("lanes:parked:batch:b") == 3


ASIDE = 1e15


def aside(redis) -> int:
    """Return how many tenants are set aside."""
    return redis.zcount("lanes:tenants:batch:m", ASIDE, "+inf")


def crowd(redis, tenants: int = 100, **settings: Any) -> Money:
    """Return a lane with so many tenants that have used up what each may cost, and have a job left."""
    money = Money(redis, **settings)
    if not settings:
        money.set_cap("tenant|*", 1)
    for tenant in range(tenants):
        for i in range(2):
            money.add(f"old-{tenant}-{i}", tenant=f"old-{tenant}")
    names = []
    while len(names) < tenants or money.scripts.look_ms == 0:
        names += money.names()
    assert aside(redis) == tenants
    return money


def old(money: Money) -> int:
    """Return how many of the crowd's jobs are among the next 150, where another tenant has as many."""
    for i in range(150):
        money.add(f"new-{i}", tenant="new")
    return sum(name.startswith("old") for name in money.names(150))


@pytest.mark.parametrize("dollars", [100, None])
def test_tenants_return_to_their_turns_when_the_cap_of_all_is_raised_or_goes(redis, dollars):
    """By the controls, beside one who always has jobs."""
    money = crowd(redis)
    money.set_cap("tenant|*", dollars)
    if dollars is None:
        assert aside(redis) == 0
    assert old(money) > 0
    assert aside(redis) == 0


def test_tenants_return_to_their_turns_when_the_settings_have_no_cap_any_more(redis):
    """All of them, more than a claim moves."""
    money = crowd(redis, tenant_usd_per_day={"*": 1})
    money.settings = Settings(limits=money.settings.limits)
    write_caps(money.client, "", money.settings)
    money.know(money.budget(), BATCH)
    assert aside(redis) == 0
    assert old(money) > 0


def test_tenants_that_nothing_keeps_back_return_with_the_first_that_is_come_to(redis):
    """As a control lapses, or more of them than are moved at once had been set aside."""
    money = crowd(redis)
    redis.delete("lanes:controls")
    assert len(money.names(1)) == 1
    assert aside(redis) == 100 - 64
