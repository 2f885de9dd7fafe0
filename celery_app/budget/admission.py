"""The budget's answer to a job that wants to call the API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: What a job may have to wait for: ``closed`` is the API's own ``retry-after`` or its refusal of the account, ``calls``
#: are the calls in flight.
Dimension = Literal["requests", "input_tokens", "output_tokens", "calls", "closed"]


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether a job may call the API now.

    Attributes:
        granted: whether it may.
        wait_s: seconds after which to ask again, 0 if granted.
        ticket: what to settle the call with, empty if denied.
        dimension: what is short, None if granted.
        first: whether the job holds its lane's place: it was told its own time, the others the times after it.
        certain: whether nothing can shorten the wait. If not, a call in flight may turn out cheaper than estimated, or
            a job ahead may leave: ask again within a second or so, or the place in the line is lost.
        shut_s: seconds until the API's ``retry-after`` is over, 0 where it has said none.
        reason: why the API has shut the budget; empty where it has not, or has not said.
        account: whether it refuses the account, and so every call.
        tokens: input tokens of a job that asks for more than the limit of a minute, so that no waiting helps; else 0.
        limit: that limit.
    """

    granted: bool
    wait_s: float
    ticket: str
    dimension: Dimension | None
    first: bool
    certain: bool
    shut_s: float = 0.0
    reason: str = ""
    account: bool = False
    tokens: int = 0
    limit: int = 0


@dataclass(frozen=True, slots=True)
class Settlement:
    """What came of settling a call.

    Attributes:
        known: whether its ticket was open.
        own: whether its refusal (429, 529) is a verdict on this job alone: it was refused before, and others have been
            answered since. Nobody else is held up by it.
        shut: whether it has shut the budget, which was open until then.
        opened: whether it has opened the budget again.
    """

    known: bool
    own: bool
    shut: bool
    opened: bool
