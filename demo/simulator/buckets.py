"""Bucket: a token bucket that refills continuously."""

from __future__ import annotations

SECONDS_PER_MINUTE = 60


class Bucket:
    """A level that rises at a steady rate up to a capacity, and falls by what is taken.

    A bucket of 60 per minute with a burst of 1 s: `60 RPM may be enforced as 1 request per second`
    (platform.claude.com, rate limits).
    """

    __slots__ = ("_updated", "capacity", "level", "limit", "rate")

    def __init__(self, limit: float, burst: float, now: float) -> None:
        """Make a full bucket.

        Args:
            limit: units per minute.
            burst: seconds of refill that the bucket can hold; it always holds at least 1 unit.
            now: seconds on any steady clock, the same in every call.
        """
        self._updated = now
        self._shape(limit, burst)
        self.level = self.capacity

    def resize(self, limit: float, burst: float, now: float) -> None:
        """Take another limit from now on; what was in the bucket stays, as far as it fits."""
        self._refill(now)
        self._shape(limit, burst)
        self.level = min(self.level, self.capacity)

    def wait(self, cost: float, now: float) -> float:
        """Give the seconds until the bucket holds a cost, 0 if it does; a cost above capacity needs a full bucket."""
        self._refill(now)
        missing = min(cost, self.capacity) - self.level
        return missing / self.rate if missing > 0 else 0.0

    def take(self, cost: float, now: float) -> None:
        """Take a cost, below zero if need be: later calls then wait for it."""
        self._refill(now)
        self.level -= cost

    def remaining(self, now: float) -> float:
        """Give the units that can be taken now."""
        self._refill(now)
        return max(0.0, self.level)

    def full_in(self, now: float) -> float:
        """Give the seconds until the bucket is full."""
        self._refill(now)
        return (self.capacity - self.level) / self.rate

    def _shape(self, limit: float, burst: float) -> None:
        self.limit = limit
        self.rate = limit / SECONDS_PER_MINUTE
        self.capacity = max(1.0, self.rate * burst)

    def _refill(self, now: float) -> None:
        self.level = min(self.capacity, self.level + (now - self._updated) * self.rate)
        self._updated = now
