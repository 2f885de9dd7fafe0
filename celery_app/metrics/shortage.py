"""What a job is short of, as ``scheduler/scripts/explain.lua`` tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from celery_app.budget.levels import shown_name
from celery_app.budget.quota import BY_DAY, Quota
from celery_app.controls.control import duration

if TYPE_CHECKING:
    from collections.abc import Iterable

    from celery_app.lanes import Lane

_US_PER_S = 1_000_000

#: What is short of a budget, in words.
DIMENSIONS = {
    "requests": "requests per minute",
    "input_tokens": "input tokens per minute",
    "output_tokens": "output tokens per minute",
    "calls": "calls in flight",
    **BY_DAY,
}


#: What is short where a job waits for another one, whose prompt begins as its own.
PREFIX = "prefix"
#: What is short where money is.
CAP = "cap"

#: What is short where the API has answered 529, or nobody: it gets fewer requests for a while.
OVERLOADED = "overloaded"


class Shortage(NamedTuple):
    """One row of the script's reply.

    Attributes:
        lane: whose job it is.
        state: queued, scheduled, running, ended, dead; empty: the lane has none.
        short: a dimension of the budget, ``calls``, ``overloaded``, ``closed``, ``paused``, ``prefix``, ``cap``, a
            limit of the day (`celery_app.budget.quota.BY_DAY`); empty: nothing but a slot.
        model: that the job calls.
        wait_us: until the first of its lane and model may go.
        depth: jobs in the lane.
        due_ms: until its time has come.
        has_worker: whether one serves the lane.
        place: the job's among those of its lane and model, from 1; 0: it is not queued.
        expected_us: until it leaves, if all goes on as it does; -1: nobody knows.
        quota: that is used up; None: none.
        zone: in which its end is told.
    """

    lane: str
    state: str
    short: str
    model: str
    wait_us: int
    depth: int
    due_ms: int
    has_worker: bool
    place: int
    expected_us: int
    quota: Quota | None = None
    zone: str = "UTC"

    @classmethod
    def of(cls, row: list[Any], zone: str = "UTC") -> Shortage:
        """Read a row; zone: in which a day's end is told."""
        lane, state, short, model, wait, depth, due, has_worker, place, expected, told = row
        lane, state, short, model, told = (word.decode() for word in (lane, state, short, model, told))
        return cls(lane, state, short, model, wait, depth, due, bool(has_worker), place, expected, Quota.of(told), zone)

    @property
    def words(self) -> str | None:
        """What it waits for; None: nothing, or the API has shut its budget."""
        model = f" of {shown_name(self.model)}" if self.model else ""
        if self.short == OVERLOADED:
            return f"the API, which is overloaded: calls{model} go slowly for a while, {self.wait_us / _US_PER_S:.1f} s"
        if self.short == PREFIX:
            return f"the first job with its prompt prefix{model}, {self.wait_us / _US_PER_S:.1f} s at most"
        if self.short == CAP and self.quota is not None:
            return self.quota.words(self.zone)
        if self.short not in DIMENSIONS:
            return None
        if self.short in BY_DAY and self.quota is not None:
            of = f"{self.quota.used:,} of {self.quota.limit:,} used"
            return f"the budget{model}: {BY_DAY[self.short]}, {of}, {duration(self.wait_us / _US_PER_S)}"
        return f"the budget{model}: {DIMENSIONS[self.short]}, {self.wait_us / _US_PER_S:.1f} s"


def explain_arguments(
    prefix: str, lanes: tuple[Lane, ...], task_id: str = "", call_s: Iterable[float] = ()
) -> list[Any]:
    """Return ARGV of the script: for a job, with the seconds of a call of each lane, or for the lanes' heads."""
    return [prefix, task_id, " ".join(map(str, call_s)), *lane_arguments(lanes)]


def lane_arguments(lanes: tuple[Lane, ...]) -> list[Any]:
    """Return the lanes for a script that serves none of them."""
    return [part for lane in lanes for part in (*lane.arguments, "0")]
