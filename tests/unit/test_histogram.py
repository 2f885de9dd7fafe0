import math
from collections import Counter

import pytest
from hypothesis import given, strategies as st

from celery_app.metrics.histogram import LONGEST, RESOLUTION, SHORTEST, bucket_of, quantile, seconds_of

TIMES = st.floats(SHORTEST, LONGEST)
# Rounding at a bucket's very edge.
SLACK = 1e-9


@given(TIMES)
def test_a_bucket_stands_for_its_times_within_the_resolution(seconds):
    """The time that stands for a bucket is at most 2 % away from every time in it."""
    assert seconds_of(bucket_of(seconds)) == pytest.approx(seconds, rel=RESOLUTION + SLACK)


@given(st.lists(TIMES, min_size=1), st.floats(0, 1))
def test_a_quantile_is_that_of_the_times_themselves(times, fraction):
    """A quantile from the buckets is the nearest-rank quantile of the sorted times, within the resolution."""
    rank = max(1, math.ceil(fraction * len(times)))
    exact = sorted(times)[rank - 1]
    assert quantile(Counter(map(bucket_of, times)), fraction) == pytest.approx(exact, rel=RESOLUTION + SLACK)


@pytest.mark.parametrize("seconds", [0.0, -3.0, SHORTEST / 2, math.nan])
def test_times_too_short_to_tell_are_one_bucket(seconds):
    """A time below the range, a negative one from a clock that runs ahead, and none at all share the first bucket."""
    assert bucket_of(seconds) == bucket_of(SHORTEST)


@pytest.mark.parametrize("seconds", [LONGEST * 2, math.inf])
def test_times_too_long_to_matter_are_one_bucket(seconds):
    """However long a job waited, the number of buckets stays below 500."""
    assert bucket_of(seconds) == bucket_of(LONGEST) < 500
