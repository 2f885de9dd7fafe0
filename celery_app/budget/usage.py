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
        cache_write_tokens: of `input_tokens`, written to the cache.
        cache_write_1h_tokens: of these, for an hour.
        cache_read_tokens: of the prompt, read from the cache.
        in_batch: whether the API says that it answered the call in a message batch.
    """

    input_tokens: int
    output_tokens: int
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    cache_read_tokens: int = 0
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
        created, read = (_tokens(usage, f"cache_{what}_input_tokens") or 0 for what in ("creation", "read"))
        kinds = usage.get("cache_creation")
        hour = (_tokens(kinds, "ephemeral_1h_input_tokens") or 0) if isinstance(kinds, Mapping) else 0
        in_batch = usage.get("service_tier") == "batch"
        return cls((tokens[0] or 0) + created, tokens[1] or 0, created, min(hour, created), read, in_batch)


def _tokens(usage: Mapping[str, Any], field: str) -> int | None:
    value = usage.get(field)
    # True is an int, too, and no count.
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else None
