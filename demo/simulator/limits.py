"""Limits of one API key for one family of models: what they are, what is used of them, and how headers tell it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

# The pattern of the models that no other pattern names.
ANY_MODEL = "*"
# Seconds of requests that can be saved up: `60 RPM may be enforced as 1 request per second` (platform.claude.com).
BURST_S = 1.0
# Likewise of tokens: long enough that a prompt of a quarter of the limit is admitted at all.
TOKEN_BURST_S = 15.0
# Tokens remaining are "rounded to the nearest thousand" (platform.claude.com, rate limits).
TOKEN_ROUNDING = 1_000

# Model pattern (fnmatch) -> its limits.
LimitTable: TypeAlias = "Mapping[str, ApiLimits]"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiLimits:
    """What one API key may use of one family of models. None, or 0, is no limit.

    Attributes:
        rpm: requests per minute.
        itpm: input tokens per minute; cache creation counts, cache reads do not.
        otpm: output tokens per minute, as produced; max_tokens does not count.
        in_flight: calls at the same time.
        batch_rpm: calls to the batches API per minute, for all models; those of a model pattern count for nothing.
        batch_queue: requests that wait in a key's batches, likewise; a batch that would be too much gets 429.
    """

    rpm: float | None = None
    itpm: float | None = None
    otpm: float | None = None
    in_flight: int | None = None
    batch_rpm: float | None = None
    batch_queue: int | None = None


class Bucket:
    """A level that rises at a steady rate up to a capacity of at least 1, and falls by what is taken."""

    def __init__(self, limit: float, burst: float, now: float) -> None:
        """Make a full bucket of `limit` a minute that holds `burst` seconds of it; `now` is of any steady clock."""
        self._updated = now
        self.level = math.inf
        self.resize(limit, burst, now)

    def resize(self, limit: float, burst: float, now: float) -> None:
        """Take another limit from now on; what was in the bucket stays, as far as it fits."""
        if self.level < math.inf:
            self._refill(now)
        self.limit = limit
        self.rate = limit / 60
        self.capacity = max(1.0, self.rate * burst)
        self.level = min(self.level, self.capacity)

    def wait(self, cost: float, now: float) -> float:
        """Give the seconds until the bucket holds a cost, 0 if it does; a cost above capacity needs a full bucket."""
        self._refill(now)
        return max(0.0, min(cost, self.capacity) - self.level) / self.rate

    def take(self, cost: float, now: float) -> None:
        """Take a cost, below zero if need be: later calls then wait for it."""
        self._refill(now)
        self.level -= cost

    def _refill(self, now: float) -> None:
        self.level = min(self.capacity, self.level + (now - self._updated) * self.rate)
        self._updated = now


class Denial(NamedTuple):
    """Why a call is not admitted."""

    limit: str  # what is used up, as the error message says it
    wait: float  # seconds until the call would be admitted, 0 if nobody can know


class Account:
    """What one API key has used of one family of models; times are seconds on one steady clock."""

    def __init__(self, limits: ApiLimits, now: float) -> None:
        """Start with full buckets."""
        self.in_flight = 0
        self.buckets: dict[str, Bucket] = {}
        self.reshape(limits, now)

    def reshape(self, limits: ApiLimits, now: float) -> None:
        """Take other limits from now on, keeping what is in the buckets."""
        self.limits = limits
        per_minute = {"requests": limits.rpm, "input-tokens": limits.itpm, "output-tokens": limits.otpm}
        for name, limit in per_minute.items():
            burst = BURST_S if name == "requests" else TOKEN_BURST_S
            if not limit:
                self.buckets.pop(name, None)
            elif name in self.buckets:
                self.buckets[name].resize(limit, burst, now)
            else:
                self.buckets[name] = Bucket(limit, burst, now)

    def admit(self, input_tokens: int, now: float) -> Denial | None:
        """Take a call's cost from every bucket, or from none and say why; of output tokens some must be left."""
        if self.limits.in_flight and self.in_flight >= self.limits.in_flight:
            return Denial("concurrent connections", 0.0)
        costs = {"requests": 1, "input-tokens": input_tokens, "output-tokens": 1}
        waits = [(bucket.wait(costs[name], now), name) for name, bucket in self.buckets.items()]
        wait, longest = max(waits, default=(0.0, ""))
        if wait > 0:
            return Denial(f"{longest.replace('-', ' ')} per minute", wait)
        for name in self.buckets.keys() - {"output-tokens"}:
            self.buckets[name].take(costs[name], now)
        return None

    def produce(self, output_tokens: int, now: float) -> None:
        """Take tokens that were produced; they may drive the bucket below zero."""
        if "output-tokens" in self.buckets:
            self.buckets["output-tokens"].take(output_tokens, now)


def pattern_of(model: str, table: Mapping[str, object]) -> str:
    """Give the first pattern, in the table's order, that fits a model; ANY_MODEL comes last wherever it stands."""
    return next((each for each in table if each != ANY_MODEL and fnmatchcase(model, each)), ANY_MODEL)


def ratelimit_headers(account: Account, now: float, wall: float) -> dict[str, str]:
    """Give the anthropic-ratelimit-* headers of the limits that an account has.

    `now` is of the clock of the account, `wall` the seconds since the epoch; `reset` is the time of full replenishment.
    """
    for bucket in account.buckets.values():
        bucket.take(0, now)
    told = dict(account.buckets)
    tokens = [bucket for name, bucket in told.items() if name != "requests"]
    if tokens:
        # `tokens` shows the most restrictive limit in effect.
        told["tokens"] = min(tokens, key=lambda bucket: bucket.level / bucket.capacity)
    found: dict[str, str] = {}
    for name, bucket in told.items():
        remaining, head = max(0.0, bucket.level), f"anthropic-ratelimit-{name}"
        full = datetime.fromtimestamp(math.ceil(wall + (bucket.capacity - bucket.level) / bucket.rate), UTC)
        rounded = int(remaining) if name == "requests" else round(remaining / TOKEN_ROUNDING) * TOKEN_ROUNDING
        found |= {f"{head}-limit": str(int(bucket.limit)), f"{head}-remaining": str(rounded)}
        found[f"{head}-reset"] = f"{full:%Y-%m-%dT%H:%M:%SZ}"
    return found
