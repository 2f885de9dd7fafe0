"""What the scheduler answers to a call that wants to leave, and to one that has come back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

#: What a call may have to wait for: ``closed`` is the API's own ``retry-after`` or its refusal of the account,
#: ``calls`` are the calls in flight; ``cap`` is money; ``lost`` is the job itself.
Dimension = Literal[
    "requests",
    "input_tokens",
    "output_tokens",
    "calls",
    "requests_day",
    "input_tokens_day",
    "output_tokens_day",
    "cap",
    "closed",
    "lost",
]


@dataclass(frozen=True, slots=True)
class Reservation:
    """Whether a call may leave now.

    Attributes:
        ticket: what to settle the call with, empty if it has to wait.
        wait_s: seconds after which to ask again, 0 if it need not.
        dimension: what is short, None if nothing is.
        shut_s: seconds until the API's ``retry-after`` is over, 0 where it has said none.
        reason: why the API has shut the budget, or which quota is used up (`celery_app.budget.quota`); else empty.
        account: whether it refuses the account, and so every call.
        tokens: input tokens of a job that asks for more than the limit of a minute, so that no waiting helps; else 0.
        limit: that limit.
    """

    ticket: str
    wait_s: float = 0.0
    dimension: Dimension | None = None
    shut_s: float = 0.0
    reason: str = ""
    account: bool = False
    tokens: int = 0
    limit: int = 0

    @property
    def granted(self) -> bool:
        """Whether it may."""
        return bool(self.ticket)

    @property
    def lost(self) -> bool:
        """Whether the job in hand is somebody else's by now, so that nothing is reserved for it here."""
        return self.dimension == "lost"


class Warned(NamedTuple):
    """A cap of which a call has used the last part that nobody was warned of.

    Attributes:
        cap: ``all|``, ``lane|batch``, ``tenant|acme`` or ``batch|<id>``.
        spent: nanodollars, settled.
        limit: nanodollars.
        day: its date; empty: the cap has no end.
    """

    cap: str
    spent: int
    limit: int
    day: str

    @classmethod
    def of(cls, told: list[bytes]) -> Warned:
        """Read what the script tells."""
        cap, spent, limit, day = (each.decode(errors="replace") for each in told)
        return cls(cap, int(spent), int(limit), day)


@dataclass(frozen=True, slots=True)
class Settlement:
    """What came of settling a call.

    Attributes:
        known: whether its ticket was open.
        own: whether its refusal (429, 529) is a verdict on this job alone: it was refused before, and others have been
            answered since. Nobody else is held up by it.
        shut: whether it has shut the budget, which was open until then.
        opened: whether it has opened the budget again.
        cancelled: whether the job was cancelled before its answer came, and so does not end with it.
        warnings: of caps that are nearly used up since.
    """

    known: bool
    own: bool
    shut: bool
    opened: bool
    cancelled: bool = False
    warnings: tuple[Warned, ...] = ()
