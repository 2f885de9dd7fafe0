"""What a failed call means for its job."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery_app.budget import CallOutcome

#: Full-jitter backoff: uniform in 0 … min(BACKOFF_CAP, BACKOFF_BASE * 2^failures).
#: Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
BACKOFF_BASE = 0.5
BACKOFF_CAP = 60.0

#: Failures from which on the backoff is at its cap, however many there were.
MOST_DOUBLED = 10

#: Seconds until the next try after a 429 that does not say when; the budget decides how long it really takes.
LIMITED_PAUSE = 0.1


@dataclass(frozen=True, slots=True)
class Failure:
    """What a failed call means for its job.

    Attributes:
        kind: ``fatal``: the job fails at once. ``limited``: it goes back, no attempt spent. ``retry``: it goes back
            after a backoff, one attempt spent.
        error: what the job fails with, safe for a JSON result backend, for logs and for events.
        retry_after: seconds the API asked to be left alone; None where it did not say.
        overloaded: whether everybody should slow down.
        headers: of the answer, None if there was none.
        account: whether this is the API's verdict on the account, and so on every call; see `refuses_account`.
        timed_out: whether the call took all of its time: the next one will most likely, too, and be paid for as well.
    """

    kind: Literal["fatal", "limited", "retry"]
    error: Exception
    retry_after: float | None = None
    overloaded: bool = False
    headers: Mapping[str, str] | None = None
    timed_out: bool = False
    account: bool = False

    @property
    def outcome(self) -> CallOutcome:
        """How the call ended, for the budget."""
        if self.kind == "limited":
            return "limited"
        if self.account:
            return "refused"
        return "overloaded" if self.overloaded else "failed"


def backoff(failures: int) -> float:
    """Return the seconds to wait after the n-th failure, counted from 0."""
    return random.uniform(0, min(BACKOFF_CAP, BACKOFF_BASE * 2 ** min(failures, MOST_DOUBLED)))
