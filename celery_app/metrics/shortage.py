"""What a job is short of, as ``scheduler/scripts/explain.lua`` tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from celery_app.lanes import Lane

_US_PER_S = 1_000_000

#: What is short of a budget, in words.
DIMENSIONS = {
    "requests": "requests per minute",
    "input_tokens": "input tokens per minute",
    "output_tokens": "output tokens per minute",
    "calls": "calls in flight",
}


class Shortage(NamedTuple):
    """One row of the script's reply."""

    lane: str
    state: str
    short: str
    model: str
    wait_us: int
    place: int
    depth: int
    refill_us: int
    due_ms: int
    has_worker: bool

    @classmethod
    def of(cls, row: list[Any]) -> Shortage:
        """Read a row."""
        lane, state, short, model, *numbers, has_worker = row
        words = (word.decode() for word in (lane, state, short, model))
        return cls(*words, *numbers, has_worker=bool(has_worker))  # type: ignore[misc]

    @property
    def words(self) -> str | None:
        """What the budget is short of; None: nothing, or the API has shut it."""
        if self.short not in DIMENSIONS:
            return None
        model = f" of {self.model}" if self.model else ""
        return f"the budget{model}: {DIMENSIONS[self.short]}, {self.wait_us / _US_PER_S:.1f} s"


def explain_arguments(prefix: str, lanes: tuple[Lane, ...], task_id: str = "") -> list[Any]:
    """Return ARGV of the script: for a job, or for the heads of all lanes."""
    return [prefix, task_id, *lane_arguments(lanes)]


def lane_arguments(lanes: tuple[Lane, ...]) -> list[Any]:
    """Return the lanes for a script that serves none of them."""
    return [part for lane in lanes for part in (*lane.arguments, "0")]
