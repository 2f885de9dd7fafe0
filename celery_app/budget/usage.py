"""What a call has used, as far as the API's limits count it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: More tokens than any call has: twice the largest context window, of a million (platform.claude.com, context windows).
#: A number above it is a gateway's nonsense; taken for a cost, it would hold up every lane for minutes.
MOST_TOKENS = 2_000_000


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that count against the limits, and those that only cost something.

    Attributes:
        input_tokens: of the prompt, cache creation included, cache reads not (platform.claude.com, rate limits).
        output_tokens: produced.
        usd: money that the call has cost, in nanodollars; None: no price is known.
        cache_read: of the prompt, read from the API's cache; -1: the answer does not say.
        cache_created: of the prompt, put there; -1: the answer does not say.
        cache_hour: of these, for an hour.
        in_batch: whether the API says that it answered the call in a message batch.
    """

    input_tokens: int
    output_tokens: int
    usd: int | None = None
    cache_read: int = -1
    cache_created: int = -1
    cache_hour: int = 0
    in_batch: bool = False

    @classmethod
    def of(cls, message: Mapping[str, Any]) -> Usage | None:
        """Return what a message's ``usage`` says, or None where it says nothing that makes sense."""
        usage = message.get("usage")
        if not isinstance(usage, Mapping):
            return None
        tokens = _tokens(usage, "input_tokens"), _tokens(usage, "output_tokens")
        if None in tokens:
            return None
        read, created = (_tokens(usage, f"cache_{how}_input_tokens") for how in ("read", "creation"))
        read, created = (-1 if number is None else number for number in (read, created))
        counted = (tokens[0] or 0) + max(0, created)
        kinds = usage.get("cache_creation")
        hour = _tokens(kinds, "ephemeral_1h_input_tokens") if isinstance(kinds, Mapping) else None
        return cls(
            counted,
            tokens[1] or 0,
            cache_read=read,
            cache_created=created,
            cache_hour=min(hour or 0, max(0, created)),
            in_batch=usage.get("service_tier") == "batch",
        )


def _tokens(usage: Mapping[str, Any], field: str) -> int | None:
    value = usage.get(field)
    # True is an int, too, and no count.
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else None
