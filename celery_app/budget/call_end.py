"""How a call ended, as the budget has to know it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from celery_app.budget.headers import RateLimits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery_app.budget.headers import RateLimit
    from celery_app.budget.usage import Usage

#: How a call ended. ``limited``: 429. ``overloaded``: 529, or no connection at all; everybody slows down for a while.
#: ``refused``: the API refuses the account. ``failed``: in any other way, what it used is not known. ``unsent``: it was
#: admitted and never made.
CallOutcome: TypeAlias = Literal["answered", "limited", "overloaded", "refused", "failed", "unsent"]

#: What the script takes for "not said".
_UNKNOWN = -1

_MS_PER_S = 1_000


@dataclass(frozen=True, slots=True)
class CallEnd:
    """What came of a call; ``begun``: nothing yet but the headers of its answer.

    Attributes:
        usage: tokens that it used, None where the answer does not say.
        headers: of the answer, None if there was none.
        outcome: how it ended.
        reason: why the API refused it, in words that anybody may read.
        refused_at: `Budget.sent_at` of the job's last call that was limited or overloaded; 0: none was.
        prefix: of its job's prompt, as `prefix_of` has it; empty: nobody asks for it.
    """

    usage: Usage | None = None
    headers: Mapping[str, str] | None = None
    outcome: CallOutcome | Literal["begun"] = "answered"
    reason: str = ""
    refused_at: int = 0
    prefix: str = ""

    @property
    def status(self) -> int:
        """The API's status for a call that it refused; 0: it did not refuse it, or said none."""
        status, _, _ = self.reason.partition(" ")
        return int(status) if status.isdecimal() else 0

    @property
    def usd(self) -> int:
        """Nanodollars that the call has cost, -1: not known; the API bills no error."""
        if self.usage is None or self.usage.usd is None:
            return 0 if self.status else _UNKNOWN
        return self.usage.usd

    def said(self, variant: str) -> RateLimits:
        """Return what the headers say of a model with a variant, or with none."""
        return RateLimits.of(self.headers or {}, variant)

    def arguments(self, variant: str) -> tuple[str | int, ...]:
        """Return it as ``scheduler/scripts/settle.lua`` takes it."""
        used = (self.usage.input_tokens, self.usage.output_tokens) if self.usage else (_UNKNOWN, _UNKNOWN)
        return (self.outcome, *used, *_header_args(self.said(variant)), self.reason, self.refused_at)

    @property
    def cached(self) -> tuple[str | int, ...]:
        """What it tells of the API's cache, for the end of the script's arguments; nothing where nobody asks."""
        used = (self.usage.cache_read, self.usage.cache_created) if self.usage else (_UNKNOWN, _UNKNOWN)
        return (self.prefix, *used) if self.prefix else ()


def _header_args(said: RateLimits) -> tuple[int, ...]:
    retry_ms = _UNKNOWN if said.retry_after is None else int(said.retry_after * _MS_PER_S)
    numbers = (_limit_and_rest(limit) for limit in (said.requests, said.input_tokens, said.output_tokens))
    return retry_ms, *(number for pair in numbers for number in pair)


def _limit_and_rest(limit: RateLimit | None) -> tuple[int, int]:
    if limit is None:
        return _UNKNOWN, _UNKNOWN
    return limit.limit, _UNKNOWN if limit.remaining is None else limit.remaining
