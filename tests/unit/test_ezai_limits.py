import pytest

from demo.simulator import ApiLimits
from demo.simulator.limits import Account, Bucket


def test_a_bucket_starts_full_and_refills_steadily_up_to_its_capacity():
    """It holds its burst in seconds of its rate; half of a unit's time brings half of a unit."""
    bucket = Bucket(limit=60, burst=5, now=0)
    assert bucket.level == pytest.approx(5)
    bucket.take(5, 0)
    bucket.take(0, 0.5)
    assert bucket.level == pytest.approx(0.5)
    bucket.take(0, 1_000)
    assert bucket.level == pytest.approx(5)


def test_the_wait_is_exact():
    """After exactly the wait that was told, the cost is there, and shortly before it is not."""
    bucket = Bucket(limit=60, burst=4, now=0)
    bucket.take(4, 0)
    wait = bucket.wait(3, 0)
    assert bucket.wait(3, wait - 0.01) > 0
    assert bucket.wait(3, wait) == pytest.approx(0)


def test_an_oversized_cost_needs_a_full_bucket_and_is_owed():
    """A cost above the capacity passes when the bucket is full, and later ones wait until it is paid."""
    bucket = Bucket(limit=60, burst=10, now=0)
    assert bucket.wait(25, 0) == 0
    bucket.take(25, 0)
    assert bucket.wait(1, 0) == pytest.approx(16)


def test_another_limit_keeps_the_level():
    """A limit changed while running neither refills nor empties the bucket, but what does not fit is gone."""
    bucket = Bucket(limit=600, burst=1, now=0)
    bucket.take(4, 0)
    bucket.resize(limit=1_200, burst=1, now=0)
    assert bucket.level == pytest.approx(6)
    bucket.resize(limit=120, burst=1, now=0)
    assert bucket.level == pytest.approx(2)


def test_a_denied_call_costs_nothing():
    """What a bucket lacks is not taken from the others."""
    account = Account(ApiLimits(rpm=120, itpm=40), 0)
    assert account.admit(10, 0) is None
    denial = account.admit(5, 0)
    assert denial is not None
    assert denial.limit == "input tokens per minute"
    assert denial.wait == pytest.approx(7.5)
    assert account.buckets["requests"].level == pytest.approx(1)


def test_the_longest_wait_is_told():
    """When several limits are used up, the call has to wait for the slowest of them."""
    account = Account(ApiLimits(rpm=60, itpm=4), 0)
    account.admit(1, 0)
    denial = account.admit(1, 0)
    assert denial is not None
    assert denial.limit == "input tokens per minute"
    assert denial.wait == pytest.approx(15)
