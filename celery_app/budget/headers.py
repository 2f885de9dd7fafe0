"""What the API says about its limits in the headers of an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Seconds; a longer ``retry-after`` is taken for this. The API is asked again then, and the fleet is never closed for
#: days because of a gateway's nonsense.
MOST_RETRY_AFTER = 3_600.0

#: A number above this is no limit, and Lua would not count with it exactly.
_MOST = 2**53

_PREFIX = "anthropic-ratelimit"


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
    def of(cls, headers: Mapping[str, str]) -> RateLimits:
        """Read the headers of an answer; their names may be in any case."""
        lower = {name.lower(): value for name, value in headers.items()}
        return cls(
            requests=_rate_limit(lower, "requests"),
            input_tokens=_rate_limit(lower, "input-tokens"),
            output_tokens=_rate_limit(lower, "output-tokens"),
            retry_after=_seconds(lower.get("retry-after", "")),
        )


def _rate_limit(headers: Mapping[str, str], name: str) -> RateLimit | None:
    limit = _whole(headers.get(f"{_PREFIX}-{name}-limit", ""))
    remaining = _whole(headers.get(f"{_PREFIX}-{name}-remaining", ""))
    return RateLimit(limit, remaining) if limit else None


def _whole(text: str) -> int | None:
    """Return a number of units; `isdigit` takes digits of every script, and so does `int`."""
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(_MOST))):
        return None
    return min(int(text), _MOST)


def _seconds(text: str) -> float | None:
    """Return the seconds of ``retry-after``; a date or nonsense counts as not said."""
    try:
        seconds = float(text)
    except ValueError:
        return None
    return min(seconds, MOST_RETRY_AFTER) if seconds >= 0 else None  # not a number compares as false, too
