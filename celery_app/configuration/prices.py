"""What a model's tokens cost, as an operator writes it down."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator

#: Of the price of input tokens: writing them to the cache for 5 minutes, for an hour, and reading them from it
#: (platform.claude.com, prompt caching).
_WRITE, _WRITE_1H, _READ = 1.25, 2.0, 0.1

#: Hosts to which a message may go unencrypted.
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}

# The most is a thousand times what any model costs: a price for a token, taken for one for a million, is still below.
Dollars = Annotated[float, Field(ge=0, le=100_000, allow_inf_nan=False)]


class Price(BaseModel):
    """Dollars per million tokens.

    Attributes:
        input: of the prompt; ``in`` where it is set.
        output: of the answer; ``out`` where it is set.
        cache_write: of the prompt, written to the cache for 5 minutes; by default 1.25 x `input`.
        cache_write_1h: the same for an hour; by default 1.6 x `cache_write`, as the API has it.
        cache_read: read from it; by default 0.1 x `input`.
        batch_discount: part of all of these that a call in a message batch is spared.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: Dollars = Field(alias="in")
    output: Dollars = Field(alias="out")
    cache_write: Dollars = 0.0
    cache_write_1h: Dollars = 0.0
    cache_read: Dollars = 0.0
    batch_discount: Annotated[float, Field(ge=0, le=1)] = 0.5

    @property
    def part_in_batch(self) -> float:
        """The part of all of these that is paid in a message batch."""
        return 1 - self.batch_discount

    @model_validator(mode="before")
    @classmethod
    def _with_defaults(cls, given: object) -> object:
        if not isinstance(given, dict) or not isinstance(given.get("in"), int | float):
            return given
        base = given["in"]
        filled = {"cache_write": _WRITE * base, "cache_read": _READ * base, **given}
        if isinstance(filled["cache_write"], int | float):
            filled.setdefault("cache_write_1h", filled["cache_write"] * _WRITE_1H / _WRITE)
        return filled


def webhook(url: str) -> str:
    """Return the address of a webhook.

    Raises:
        ValueError: what is said would be read on the way, or no request can be made of it.
    """
    if " " in url or not url.isprintable():  # urlsplit() overlooks some of these
        raise ValueError("has to be an address without blanks and control characters")
    parts = urlsplit(url)
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)):
        raise ValueError("has to begin with https://, or with http:// where it is on this machine")
    return url
