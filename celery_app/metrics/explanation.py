"""Why a job waits, and for how long, by the code that decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from celery.states import PENDING, READY_STATES

from celery_app.budget.shut import reasons_of
from celery_app.client.cancelling import id_of
from celery_app.connection import broker_errors, key_prefix, redis_client
from celery_app.control import Control, controls_of
from celery_app.keys import CONTROLS, SHUT
from celery_app.presence import unserved
from celery_app.results import backend_of
from celery_app.scheduler.scripts import EXPLAIN
from celery_app.settings import settings_of

if TYPE_CHECKING:
    from celery_app.lanes import Lane

_US_PER_S, _MS_PER_S = 1_000_000, 1_000

#: What is short, in words.
_SHORT = {
    "requests": "requests per minute",
    "input_tokens": "input tokens per minute",
    "output_tokens": "output tokens per minute",
    "calls": "calls in flight",
}


class Explanation(TypedDict):
    """What `explain` tells of a job.

    Attributes:
        state: ``queued``, ``scheduled``, ``running``, ``dead``, ``ended`` or ``unknown``.
        lane: its lane; None: not known.
        position: its place among the jobs of its lane and model, as their tenants take turns; None: it is not queued.
        of: jobs queued or scheduled in its lane.
        waiting_for: what it waits for, in words; None: nothing but a slot.
        expected_s: seconds until it may leave, as far as the budget tells; None: nobody knows.
    """

    state: str
    lane: str | None
    position: int | None
    of: int | None
    waiting_for: str | None
    expected_s: float | None


class Shortage(NamedTuple):
    """One row of ``scheduler/scripts/explain.lua``."""

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
        if self.short not in _SHORT:
            return None
        model = f" of {self.model}" if self.model else ""
        return f"the budget{model}: {_SHORT[self.short]}, {self.wait_us / _US_PER_S:.1f} s"


def explain(app: Any, job: Any) -> Explanation:
    """Say why a job waits; see `Client.explain`."""
    task_id = id_of(job)
    with broker_errors(app):
        client, prefix = redis_client(app), key_prefix(app)
        rows = EXPLAIN.run(client, (), explain_arguments(prefix, settings_of(app).lanes, task_id))
        if not rows:
            state = backend_of(app).get_state(task_id)
            known = "ended" if state in READY_STATES else "unknown" if state == PENDING else state.lower()
            return Explanation(state=known, lane=None, position=None, of=None, waiting_for=None, expected_s=None)
        found, now = Shortage.of(rows[0]), client.time()[0]
        shut = reasons_of(client.hgetall(SHUT.of(prefix)), found.lane, now)
        paused = _pauses(controls_of(client.hgetall(CONTROLS.of(prefix)), now), found)
    return _explained(found, shut, paused)


def explain_arguments(prefix: str, lanes: tuple[Lane, ...], task_id: str = "") -> list[Any]:
    """Return ARGV of the script: for a job, or for the heads of all lanes."""
    return [prefix, task_id, *lane_arguments(lanes)]


def lane_arguments(lanes: tuple[Lane, ...]) -> list[Any]:
    """Return the lanes for a script that serves none of them."""
    return [part for lane in lanes for part in (*lane.arguments, "0")]


def _pauses(controls: list[Control], found: Shortage) -> list[str]:
    return [
        each.words for each in controls if each.kind == "pause" and each.name == found.lane and each.is_for(found.model)
    ]


def _explained(found: Shortage, shut: list[str], paused: list[str]) -> Explanation:
    queued = found.state == "queued"
    reasons = []
    if found.state == "scheduled":
        reasons.append(f"its time, in {found.due_ms / _MS_PER_S:.1f} s")
    if queued and found.short == "closed":
        reasons += shut
    elif queued and found.short == "paused":
        reasons += paused
    elif queued and found.words:
        reasons.append(found.words)
    if queued and not found.has_worker:
        reasons.append(unserved(found.lane))
    return Explanation(
        state=found.state,
        lane=found.lane,
        position=found.place if queued else None,
        of=found.depth,
        waiting_for="; ".join(reasons) or None,
        expected_s=_expected(found),
    )


def _expected(found: Shortage) -> float | None:
    if found.state == "scheduled":
        return found.due_ms / _MS_PER_S
    if found.state != "queued" or not found.has_worker or not found.refill_us:
        return None
    if found.short == "paused" and not found.wait_us:
        return None  # until somebody resumes it
    return (found.wait_us + (found.place - 1) * found.refill_us) / _US_PER_S
