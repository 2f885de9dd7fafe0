"""Why a job waits, and for how long, by the code that decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

from celery.states import PENDING, READY_STATES

from celery_app.budget.shut import shut_of
from celery_app.client.cancelling import id_of
from celery_app.connections.redis_client import broker_errors, key_prefix, redis_client
from celery_app.controls.control import controls_of, pauses_of
from celery_app.keys import CONTROLS, SHUT
from celery_app.metrics.distribution import CALLS
from celery_app.metrics.reasons import in_words, job_reasons
from celery_app.metrics.shortage import Shortage, explain_arguments
from celery_app.metrics.slots import USUAL_CALL
from celery_app.metrics.store import RECALL, activities, ask
from celery_app.results.backend import backend_of
from celery_app.scheduler.scripts import EXPLAIN
from celery_app.script import run_together
from celery_app.settings import settings_of

if TYPE_CHECKING:
    from redis.client import Pipeline

    from celery_app.metrics.reasons import Reason
    from celery_app.metrics.store import LaneActivity

#: Seconds: nothing here is read from the waits of the last minutes, so as little of them is read as there can be.
_NO_WAITS = 1

#: Seconds that the length of a call is taken from.
CALLS_WINDOW = 60.0

_US_PER_S, _MS_PER_S = 1_000_000, 1_000


class Explanation(TypedDict):
    """What `explain` tells of a job.

    Attributes:
        state: ``queued``, ``scheduled``, ``running``, ``dead``, ``ended`` or ``unknown``.
        lane: its lane; None: not known.
        position: its place among the jobs of its lane and model, as their tenants take turns; None: it is not queued.
        of: jobs queued or scheduled in its lane.
        waiting_for: what it waits for, in words; None: nothing but a slot.
        expected_s: seconds until it leaves, if all goes on as it does; None: nobody knows.
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
    task_id, settings, prefix = id_of(job), settings_of(app), key_prefix(app)
    lanes = settings.lanes
    names = [lane.name for lane in lanes]

    def fill(pipe: Pipeline) -> None:
        pipe.hgetall(SHUT.of(prefix))
        pipe.hgetall(CONTROLS.of(prefix))
        pipe.time()
        ask(pipe, prefix, names, CALLS_WINDOW, _NO_WAITS)

    with broker_errors(app):
        client = redis_client(app)
        shut_fields, controls, (now, _), *rest = run_together(client, (RECALL,), fill)
        call_s = [_call_s(lane) for lane in activities(names, rest).values()]
        # Without an id the script tells of the lanes' heads.
        rows = EXPLAIN.run(client, (), explain_arguments(prefix, lanes, task_id, call_s)) if task_id else []
        if not rows:
            state = backend_of(app).get_state(task_id) if task_id else PENDING
            known = "ended" if state in READY_STATES else "unknown" if state == PENDING else state.lower()
            return (
                Explanation(state=known, lane=None, position=None, of=None, waiting_for=None, expected_s=None),
                [],
                None,
            )
    found = Shortage.of(rows[0], settings.time_zone)
    shut = shut_of(shut_fields, found.lane, now, found.model)
    pauses = pauses_of(controls_of(controls, now), found.lane)
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
    if found.state != "queued" or not found.has_worker or found.expected_us < 0:
        return None
    return found.expected_us / _US_PER_S


def _call_s(lane: LaneActivity) -> float:
    """Return the seconds that a call takes: a slot is busy for so long."""
    return CALLS.mean(lane.counts) or CALLS.mean(lane.totals) or USUAL_CALL
