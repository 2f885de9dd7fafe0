"""What a cap has set aside, on the real scripts: it stands in nobody's way, and it comes back."""

import pytest
from kit.money import DOLLAR, Money
from redis import Redis

from celery_app.scheduler.scripts import CANCEL, PRESENT

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
