from __future__ import annotations

import math

import pytest
from hypothesis import given, strategies as st

from celery_app.budget import RateLimit, RateLimits
from celery_app.budget.headers import MOST_RETRY_AFTER

NAMES = [
    f"anthropic-ratelimit-{dimension}-{what}"
    for dimension in ("requests", "tokens", "input-tokens", "output-tokens")
    for what in ("limit", "remaining", "reset")
]


def test_each_limit_is_read() -> None:
    """Limit and remaining of requests, input tokens and output tokens."""
    said = RateLimits.of(
        {
            "anthropic-ratelimit-requests-limit": "50",
            "anthropic-ratelimit-requests-remaining": "49",
            "anthropic-ratelimit-requests-reset": "2026-01-01T00:00:01Z",
            "anthropic-ratelimit-input-tokens-limit": "40000",
            "anthropic-ratelimit-input-tokens-remaining": "39000",
            "anthropic-ratelimit-output-tokens-limit": "8000",
            "anthropic-ratelimit-output-tokens-remaining": "0",
            "retry-after": "7",
        }
    )
    assert said == RateLimits(RateLimit(50, 49), RateLimit(40_000, 39_000), RateLimit(8_000, 0), 7.0)


def test_names_may_be_in_any_case() -> None:
    """A proxy may write them as it likes, and not every mapping folds case."""
    said = RateLimits.of({"Anthropic-RateLimit-Requests-Limit": "50", "Retry-After": "1.5"})
    assert said == RateLimits(requests=RateLimit(50, None), retry_after=1.5)


@pytest.mark.parametrize("limit", ["", "0", "-5", "1e3", "fifty", "\u0665\u0660", "5 0", "9" * 5_000, "nan", "1.5"])
def test_a_limit_that_is_no_whole_number_above_0_is_not_said(limit: str) -> None:
    """A wrong limit would stop the fleet; none at all only means that it has to be found."""
    assert RateLimits.of({"anthropic-ratelimit-requests-limit": limit}).requests is None


@pytest.mark.parametrize("text", ["", "soon", "-1", "nan", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_a_retry_after_that_is_no_number_of_seconds_is_not_said(text: str) -> None:
    """The dates in it would be by somebody's clock."""
    assert RateLimits.of({"retry-after": text}).retry_after is None


@pytest.mark.parametrize("text", ["1e300", "inf", "86400000"])
def test_a_retry_after_of_days_is_cut(text: str) -> None:
    """A gateway's nonsense does not stop the fleet for good."""
    assert RateLimits.of({"retry-after": text}).retry_after == MOST_RETRY_AFTER


@given(st.dictionaries(st.sampled_from([*NAMES, "retry-after"]), st.text()))
def test_whatever_comes_the_numbers_are_sound(headers: dict[str, str]) -> None:
    """No header raises, and no number leaves the range that the scripts count with exactly."""
    said = RateLimits.of(headers)
    for limit in (said.requests, said.input_tokens, said.output_tokens):
        assert limit is None or 0 < limit.limit <= 2**53
        assert limit is None or limit.remaining is None or 0 <= limit.remaining <= 2**53
    assert said.retry_after is None or (0 <= said.retry_after < math.inf)
