"""Values counted below fixed bounds, ever since: what Prometheus calls a histogram.

`histogram` is for quantiles of the last minutes, exact to 2 %. This is for whoever adds up and compares over days: a
few counters that only grow, whose bounds are the lanes' own limits among others.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping


class Distribution:
    """How values are counted; the counters are fields of somebody else's dict, which begin with its name."""

    __slots__ = ("_bounds", "_fields", "_sum", "_units")

    def __init__(self, name: str, bounds: tuple[float, ...], units: int) -> None:
        """Count nothing yet.

        Args:
            name: of what is counted.
            bounds: inclusive upper ones, ascending; above the last there is one more counter.
            units: whole units per 1.0 of a value, in which the sum is kept: sums of integers are exact.
        """
        self._bounds, self._units = bounds, units
        self._fields = tuple(f"{name}:{bound:g}" for bound in (*bounds, float("inf")))
        self._sum = f"{name}:sum"

    def add(self, counts: MutableMapping[str, int], value: float) -> None:
        """Count a value; what is below zero counts as nothing."""
        value = max(0.0, value)
        field = self._fields[bisect_left(self._bounds, value)]
        counts[field] = counts.get(field, 0) + 1
        counts[self._sum] = counts.get(self._sum, 0) + round(value * self._units)

    def buckets(self, counts: Mapping[str, int]) -> list[tuple[str, int]]:
        """Return (upper bound, how many values do not exceed it), up to ``+Inf``."""
        seen, found = 0, []
        for bound, field in zip((*map(str, map(float, self._bounds)), "+Inf"), self._fields, strict=True):
            seen += counts.get(field, 0)
            found.append((bound, seen))
        return found

    def total(self, counts: Mapping[str, int]) -> float:
        """Return the sum of all values."""
        return counts.get(self._sum, 0) / self._units

    def number(self, counts: Mapping[str, int]) -> int:
        """Return how many values there were."""
        return sum(counts.get(field, 0) for field in self._fields)

    def mean(self, counts: Mapping[str, int]) -> float | None:
        """Return the mean of all values; None where there is none."""
        number = self.number(counts)
        return self.total(counts) / number if number else None


_US_PER_S = 1_000_000

#: Seconds from submission to the first call leaving. A free slot takes milliseconds; the lanes' targets (1, 10, 600)
#: and deadlines (30, 300) are among the bounds, so that whoever keeps them is counted exactly.
WAITS = Distribution(
    "wait", (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600, 3600), _US_PER_S
)

#: Seconds that an API call takes. The lanes' call timeouts (30, 120, 300) are among the bounds.
CALLS = Distribution("call", (0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300), _US_PER_S)

#: Tokens of one answered call, from a question to the largest context window.
_TOKENS = (30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
INPUT_TOKENS = Distribution("input_tokens", _TOKENS, 1)
OUTPUT_TOKENS = Distribution("output_tokens", _TOKENS, 1)
