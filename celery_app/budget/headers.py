"""What the API says about its limits in the headers of an answer."""

from __future__ import annotations

import time
from dataclasses import dataclass
from email.utils import mktime_tz, parsedate_tz
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Seconds; a longer ``retry-after`` is taken for this. The API is asked again then, and the fleet is never closed for
#: days because of a gateway's nonsense.
MOST_RETRY_AFTER = 3_600.0

#: A number above this is no limit, and Lua would not count with it exactly.
_MOST = 2**53

_PREFIX = "anthropic-ratelimit"

#: A variant of calls with limits of its own -> what its headers begin with (platform.claude.com, fast mode).
_VARIANT_PREFIXES = {"fast": "anthropic-fast"}

_MS_PER_S = 1_000


@dataclass(frozen=True, slots=True)
class RateLimit:
    """One limit.

    Attributes:
        limit: units per minute.
        remaining: units that are left; tokens are "rounded to the nearest thousand" (platform.claude.com, rate limits).
    """

    limit: int
    remaining: int | None


@dataclass(frozen=True, slots=True)
class RateLimits:
    """All that an answer says about limits; None where it says nothing, or nothing that makes sense.

    ``reset`` is left out on purpose: it is the time of *full* replenishment, which nobody has to wait for. So is
    ``tokens``: it is the tightest of the others.

    Attributes:
        requests: limit of requests.
        input_tokens: limit of input tokens.
        output_tokens: limit of output tokens.
        retry_after: seconds before which no call will pass.
    """

    requests: RateLimit | None = None
    input_tokens: RateLimit | None = None
    output_tokens: RateLimit | None = None
    retry_after: float | None = None

    @classmethod
    def of(cls, headers: Mapping[str, str], variant: str = "") -> RateLimits:
        """Read the headers of an answer.

        Args:
            headers: their names may be in any case.
            variant: of the call, as `variant_of` names it. Where the answer has headers of its own for the variant,
                its tokens' limits are theirs; the usual ones tell of other calls then.
        """
        lower = {name.lower(): value for name, value in headers.items()}
        tokens = _VARIANT_PREFIXES.get(variant, _PREFIX)
        if not any(name.startswith(tokens) for name in lower):
            tokens = _PREFIX
        return cls(
            requests=_rate_limit(lower, _PREFIX, "requests"),
            input_tokens=_rate_limit(lower, tokens, "input-tokens"),
            output_tokens=_rate_limit(lower, tokens, "output-tokens"),
            retry_after=_retry_after(lower),
        )


def _rate_limit(headers: Mapping[str, str], prefix: str, name: str) -> RateLimit | None:
    limit = _whole(headers.get(f"{prefix}-{name}-limit", ""))
    remaining = _whole(headers.get(f"{prefix}-{name}-remaining", ""))
    return RateLimit(limit, remaining) if limit else None


def _whole(text: str) -> int | None:
    """Return a number of units; `isdigit` takes digits of every script, and so does `int`."""
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(_MOST))):
        return None
    return min(int(text), _MOST)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds for which the API wants to be left alone, in whichever form it says so; None: in none.

    Milliseconds first, as Anthropic's SDK reads them, then seconds, then a date of HTTP.
    """
    said = headers.get("retry-after", "")
    milliseconds = _number(headers.get("retry-after-ms", ""))
    seconds = _number(said) if milliseconds is None else milliseconds / _MS_PER_S
    if seconds is None:
        seconds = _seconds_until(said, headers.get("date", ""))
    return None if seconds is None else min(seconds, MOST_RETRY_AFTER)


def _number(text: str) -> float | None:
    """Return a number of 0 or more; where a gateway and the API have both said one, the greater."""
    try:
        number = max(float(part) for part in text.split(","))
    except ValueError:
        return None
    return number if number >= 0 else None  # not a number compares as false, too


def _seconds_until(text: str, now: str) -> float | None:
    """Return the seconds from one date until another; what has passed is now.

    Both are by the clock of who answered. Only where an answer bears no date, the machine's own clock has to do, as it
    does in Anthropic's SDK.
    """
    at, answered_at = _date(text), _date(now)
    if at is None:
        return None
    return max(0.0, at - (time.time() if answered_at is None else answered_at))


def _date(text: str) -> float | None:
    """Return a date of HTTP, in any of its three forms (RFC 9110, 5.6.7), as seconds since the epoch."""
    try:
        parts = parsedate_tz(text)
        return None if parts is None else float(mktime_tz(parts))
    except (ArithmeticError, LookupError, TypeError, ValueError):
        return None  # the parser has never been sure of what it takes
