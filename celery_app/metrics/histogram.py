"""Times in buckets that grow by a constant factor: any quantile within 2 %, from a few hundred counters.

The idea is DDSketch's (Masson et al., VLDB 2019): bucket i holds the times in (A·g^(i-1), A·g^i], so its middle is off
by the same fraction everywhere, and the histograms of two workers are added by adding their counters.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: A bucket's middle is at most this fraction away from any time in it; twice as fine would be twice the counters.
RESOLUTION = 0.02

#: Seconds; all that is shorter is one bucket. Redis alone needs this long to hand a job over.
SHORTEST = 0.0001

#: Seconds; all that is longer is one bucket. Who waited for an hour does not care for the minute.
LONGEST = 3600.0

_GROWTH = (1 + RESOLUTION) ** 2
_LOG_GROWTH = math.log(_GROWTH)
_LOG_SHORTEST = math.log(SHORTEST)
_LAST = math.ceil((math.log(LONGEST) - _LOG_SHORTEST) / _LOG_GROWTH)


def bucket_of(seconds: float) -> int:
    """Return the index of the bucket that a time falls into; 0 for whatever is not above `SHORTEST`."""
    if not seconds > SHORTEST:  # a NaN is not above it either
        return 0
    if seconds >= LONGEST:
        return _LAST
    return math.ceil((math.log(seconds) - _LOG_SHORTEST) / _LOG_GROWTH)


def seconds_of(bucket: int) -> float:
    """Return the time that stands for a bucket: its geometric middle, in seconds."""
    if bucket == 0:
        return SHORTEST
    return SHORTEST * math.exp((bucket - 0.5) * _LOG_GROWTH)


def quantile(counts: Mapping[int, int], fraction: float) -> float | None:
    """Return the time that `fraction` of all times do not exceed, by nearest rank.

    Args:
        counts: bucket -> how many times fell into it.
        fraction: from 0 to 1; 0.5 asks for the median.

    Returns:
        Seconds, or None where there is no time at all.
    """
    rank = max(1, math.ceil(fraction * sum(counts.values())))
    seen = 0
    for bucket in sorted(counts):
        seen += counts[bucket]
        if seen >= rank:
            return seconds_of(bucket)
    return None
