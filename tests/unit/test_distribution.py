"""Values counted below fixed bounds."""

import math
from bisect import bisect_right

from hypothesis import given, strategies as st

from celery_app import LANES
from celery_app.metrics.distribution import CALLS, WAITS, Distribution
from celery_app.metrics.slots import TARGETS

BOUNDS = (0.5, 1.0, 5.0)
SOME = Distribution("some", BOUNDS, 1_000_000)


@given(st.lists(st.floats(0, 100)))
def test_each_bound_has_the_values_that_do_not_exceed_it(values):
    """Bounds are inclusive, counts add up to all values, and the sum is theirs."""
    counts: dict[str, int] = {}
    for value in values:
        SOME.add(counts, value)
    expected = [bisect_right(sorted(values), bound) for bound in BOUNDS]
    assert SOME.buckets(counts) == [*zip(map(str, BOUNDS), expected, strict=True), ("+Inf", len(values))]
    assert SOME.number(counts) == len(values)
    assert math.isclose(SOME.total(counts), sum(values), abs_tol=1e-6 * (len(values) + 1))


def test_what_is_no_time_counts_as_none():
    """A clock that runs ahead, and a number that is none, break no sum."""
    counts: dict[str, int] = {}
    SOME.add(counts, -3.0)
    SOME.add(counts, math.nan)
    assert (SOME.number(counts), SOME.total(counts), SOME.mean(counts), SOME.mean({})) == (2, 0, 0, None)


def test_what_lanes_promise_is_counted_exactly():
    """Each lane's target and deadline are bounds of waits, and its call timeout one of calls."""
    waits, calls = ({float(bound) for bound, _ in each.buckets({})} for each in (WAITS, CALLS))
    assert {*TARGETS.values(), *(lane.deadline for lane in LANES if lane.deadline)} <= waits
    assert {lane.call_timeout for lane in LANES} <= calls
    assert {*TARGETS} == {lane.name for lane in LANES}
