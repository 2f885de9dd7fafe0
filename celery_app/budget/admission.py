"""The budget's answer to a job that wants to call the API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: What a job may have to wait for: ``closed`` is the API's own ``retry-after``, ``calls`` are the calls in flight.
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
    """

    granted: bool
    wait_s: float
    ticket: str
    dimension: Dimension | None
    first: bool
    certain: bool
