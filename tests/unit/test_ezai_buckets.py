from __future__ import annotations

import pytest

from demo.simulator.buckets import Bucket


def test_a_new_bucket_is_full() -> None:
    """A bucket starts with all that it can hold: its burst, in seconds of its rate."""
    assert Bucket(limit=120, burst=3, now=0).remaining(0) == pytest.approx(6)


def test_a_small_bucket_still_holds_one() -> None:
    """However low the rate, one unit can be saved up, or nothing would ever pass."""
    assert Bucket(limit=6, burst=1, now=0).remaining(0) == 1


def test_refill_is_continuous() -> None:
    """Half of a unit's time brings half of a unit."""
    bucket = Bucket(limit=60, burst=10, now=0)
    bucket.take(10, 0)
    assert bucket.remaining(0.5) == pytest.approx(0.5)


def test_refill_stops_at_the_capacity() -> None:
    """A bucket that is left alone does not save up more than its burst."""
    bucket = Bucket(limit=60, burst=5, now=0)
    bucket.take(1, 0)
    assert bucket.remaining(1_000) == pytest.approx(5)


def test_the_wait_is_exact() -> None:
    """After exactly the wait that was told, the cost is there, and shortly before it is not."""
    bucket = Bucket(limit=60, burst=4, now=0)
    bucket.take(4, 0)
    wait = bucket.wait(3, 0)
    assert bucket.wait(3, wait - 0.01) > 0
    assert bucket.wait(3, wait) == pytest.approx(0)


def test_an_oversized_cost_needs_a_full_bucket_and_is_owed() -> None:
    """A cost above the capacity passes when the bucket is full, and later ones wait until it is paid."""
    bucket = Bucket(limit=60, burst=10, now=0)
    assert bucket.wait(25, 0) == 0
    bucket.take(25, 0)
    assert bucket.remaining(0) == 0
    assert bucket.wait(1, 0) == pytest.approx(16)


def test_full_replenishment_is_told() -> None:
    """The time of full replenishment is what is missing, over the rate."""
    bucket = Bucket(limit=120, burst=10, now=0)
    bucket.take(7, 0)
    assert bucket.full_in(0) == pytest.approx(3.5)
    assert bucket.full_in(3.5) == pytest.approx(0)


def test_another_limit_keeps_the_level() -> None:
    """A limit changed while running neither refills nor empties the bucket, but what does not fit is gone."""
    bucket = Bucket(limit=600, burst=1, now=0)
    bucket.take(4, 0)
    bucket.resize(limit=1_200, burst=1, now=0)
    assert bucket.remaining(0) == pytest.approx(6)
    bucket.resize(limit=120, burst=1, now=0)
    assert bucket.remaining(0) == pytest.approx(2)
