"""Response headers that tell a caller its limits."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from demo.simulator.accounts import Account
    from demo.simulator.buckets import Bucket

# Tokens remaining are "rounded to the nearest thousand" (platform.claude.com, rate limits).
TOKEN_ROUNDING = 1_000


def ratelimit_headers(account: Account, now: float, wall: float) -> Iterator[tuple[str, str]]:
    """Give the anthropic-ratelimit-* headers of the limits that an account has.

    Args:
        account: the key's account for the call's model.
        now: seconds on the clock of the account's buckets.
        wall: seconds since the epoch at that moment; `reset` is the time of full replenishment.
    """
    if account.requests is not None:
        yield from _headers("requests", account.requests, 1, now, wall)
    tokens = [bucket for bucket in (account.input_tokens, account.output_tokens) if bucket is not None]
    if tokens:
        # `tokens` shows the most restrictive limit in effect.
        tightest = min(tokens, key=lambda bucket: bucket.remaining(now) / bucket.capacity)
        yield from _headers("tokens", tightest, TOKEN_ROUNDING, now, wall)
    if account.input_tokens is not None:
        yield from _headers("input-tokens", account.input_tokens, TOKEN_ROUNDING, now, wall)
    if account.output_tokens is not None:
        yield from _headers("output-tokens", account.output_tokens, TOKEN_ROUNDING, now, wall)


def _headers(name: str, bucket: Bucket, rounding: int, now: float, wall: float) -> Iterator[tuple[str, str]]:
    remaining = bucket.remaining(now)
    shown = int(remaining) if rounding == 1 else round(remaining / rounding) * rounding
    yield f"anthropic-ratelimit-{name}-limit", str(int(bucket.limit))
    yield f"anthropic-ratelimit-{name}-remaining", str(shown)
    yield f"anthropic-ratelimit-{name}-reset", _rfc3339(math.ceil(wall + bucket.full_in(now)))


@lru_cache(maxsize=1024)
def _rfc3339(epoch: int) -> str:
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
