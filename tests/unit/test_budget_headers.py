import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, strategies as st

from celery_app.budget import RateLimit, RateLimits
from celery_app.budget.headers import MOST_RETRY_AFTER

NAMES = [
    f"anthropic-ratelimit-{dimension}-{what}"
    for dimension in ("requests", "tokens", "input-tokens", "output-tokens")
    for what in ("limit", "remaining", "reset")
]


def dates(at: datetime) -> tuple[str, str, str]:
    """Return a time in the three forms of RFC 9110: of RFC 5322, of RFC 850, and of C's asctime."""
    return (
        at.strftime("%a, %d %b %Y %H:%M:%S GMT"),
        at.strftime("%A, %d-%b-%y %H:%M:%S GMT"),
        at.strftime("%a %b %e %H:%M:%S %Y"),
    )


DATES = dates(datetime(2026, 10, 21, 7, 28, tzinfo=UTC))


def test_each_limit_is_read():
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


def test_names_may_be_in_any_case():
    """A proxy may write them as it likes, and not every mapping folds case."""
    said = RateLimits.of({"Anthropic-RateLimit-Requests-Limit": "50", "Retry-After": "1.5"})
    assert said == RateLimits(requests=RateLimit(50, None), retry_after=1.5)


@pytest.mark.parametrize("limit", ["", "0", "-5", "1e3", "fifty", "\u0665\u0660", "5 0", "9" * 5_000, "nan", "1.5"])
def test_a_limit_that_is_no_whole_number_above_0_is_not_said(limit):
    """A wrong limit would stop the fleet; none at all only means that it has to be found."""
    assert RateLimits.of({"anthropic-ratelimit-requests-limit": limit}).requests is None


@pytest.mark.parametrize(
    "text", ["", "soon", "-1", "nan", "Wed, 41 Oct", "Wed, 21 Oct 99999999999999999999 07:28:00 GMT", "1; 2"]
)
def test_a_retry_after_that_is_no_time_is_not_said(text):
    """Nonsense closes nothing."""
    assert RateLimits.of({"retry-after": text, "date": DATES[0]}).retry_after is None


@pytest.mark.parametrize("until", [60, 0, -3_600])
@pytest.mark.parametrize("form", range(3))
def test_a_date_is_compared_with_the_answers_own(until, form):
    """No clocks of two machines are compared; a date that has passed is now. HTTP has three forms of a date."""
    answered = datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC)
    headers = {"Retry-After": dates(answered + timedelta(seconds=until))[form], "Date": dates(answered)[0]}
    assert RateLimits.of(headers).retry_after == max(0, until)


@pytest.mark.parametrize("date", [None, "", "today"])
def test_a_date_is_compared_with_our_clock_where_the_answer_has_none(date):
    """As Anthropic's SDK does; a second or two is what a date is exact to."""
    at = dates(datetime.now(UTC) + timedelta(seconds=100))[0]
    headers = {"retry-after": at} if date is None else {"retry-after": at, "date": date}
    retry_after = RateLimits.of(headers).retry_after
    assert retry_after is not None
    assert 80 < retry_after <= 100


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"Retry-After-Ms": "250.5"}, 0.2505),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "-5", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "nan", "retry-after": "0.25"}, 0.25),
        ({"retry-after-ms": "1e300"}, MOST_RETRY_AFTER),
        ({"retry-after": "5, 7"}, 7.0),
        ({"retry-after": " 3 "}, 3.0),
        ({"retry-after": "0"}, 0.0),
    ],
)
def test_retry_after_in_the_forms_of_the_sdk(headers, seconds):
    """Milliseconds before seconds, with fractions; of two proxies' words the longer."""
    assert RateLimits.of(headers).retry_after == pytest.approx(seconds)


def test_a_fast_answer_has_limits_of_its_own():
    """Where it says so; the usual headers tell of other calls then, and where it does not they are all there is."""
    usual = {"anthropic-ratelimit-requests-limit": "50", "anthropic-ratelimit-input-tokens-limit": "40000"}
    fast = {"anthropic-fast-input-tokens-limit": "100", "anthropic-fast-input-tokens-remaining": "7"}
    assert RateLimits.of({**usual, **fast}, "fast") == RateLimits(RateLimit(50, None), RateLimit(100, 7))
    assert RateLimits.of({**usual, **fast}) == RateLimits.of(usual) == RateLimits.of(usual, "fast")


@given(
    st.dictionaries(
        st.sampled_from([*NAMES, "retry-after", "retry-after-ms", "date"]), st.text() | st.sampled_from(DATES)
    )
)
def test_whatever_comes_the_numbers_are_sound(headers):
    """No header raises, and no number leaves the range that the scripts count with exactly."""
    said = RateLimits.of(headers)
    for limit in (said.requests, said.input_tokens, said.output_tokens):
        assert limit is None or 0 < limit.limit <= 2**53
        assert limit is None or limit.remaining is None or 0 <= limit.remaining <= 2**53
    assert said.retry_after is None or (0 <= said.retry_after < math.inf)
