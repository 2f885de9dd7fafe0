"""What a cap has set aside, on the real scripts: it stands in nobody's way, and it comes back."""

import pytest
from kit.money import Money
from redis import Redis

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
