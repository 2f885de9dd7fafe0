"""Why a job waits, and for how long, by the code that decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

from celery.states import PENDING, READY_STATES

from celery_app.budget.shut import shut_of
from celery_app.client.cancelling import id_of
from celery_app.connection import broker_errors, key_prefix, redis_client
from celery_app.control import controls_of, pauses_of
from celery_app.keys import CONTROLS, SHUT
from celery_app.metrics.reasons import in_words, job_reasons
from celery_app.metrics.shortage import Shortage, explain_arguments
from celery_app.results import backend_of
from celery_app.scheduler.scripts import EXPLAIN
from celery_app.settings import settings_of

if TYPE_CHECKING:
    from celery_app.metrics.reasons import Reason

_US_PER_S, _MS_PER_S = 1_000_000, 1_000


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


def explain(app: Any, job: Any) -> Explanation:
    """Say why a job waits; see `Client.explain`."""
    return explain_with_reasons(app, job)[0]


def explain_with_reasons(app: Any, job: Any) -> tuple[Explanation, list[Reason], Shortage | None]:
    """Say why a job waits, in one text and reason by reason, and what it is short of; None: it is in no lane."""
    task_id = id_of(job)
    with broker_errors(app):
        client, prefix = redis_client(app), key_prefix(app)
        rows = EXPLAIN.run(client, (), explain_arguments(prefix, settings_of(app).lanes, task_id))
        if not rows:
            state = backend_of(app).get_state(task_id)
            known = "ended" if state in READY_STATES else "unknown" if state == PENDING else state.lower()
            return (
                Explanation(state=known, lane=None, position=None, of=None, waiting_for=None, expected_s=None),
                [],
                None,
            )
        found, now = Shortage.of(rows[0]), client.time()[0]
        shut = shut_of(client.hgetall(SHUT.of(prefix)), found.lane, now)
        pauses = pauses_of(controls_of(client.hgetall(CONTROLS.of(prefix)), now), found.lane)
    reasons = job_reasons(found, shut, [each for each in pauses if each.is_for(found.model)])
    return explanation_of(found, reasons), reasons, found


def explanation_of(found: Shortage, reasons: list[Reason]) -> Explanation:
    """Return what is told of a job that is known."""
    return Explanation(
        state=found.state,
        lane=found.lane,
        position=found.place if found.state == "queued" else None,
        of=found.depth,
        waiting_for=in_words(reasons),
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
