"""For what the jobs of a lane, or one job, wait: reason by reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from celery_app.budget.shut import Shut, shut_of
from celery_app.controls.control import Control, pauses_of
from celery_app.metrics.shortage import CAP, OVERLOADED, PREFIX, Shortage
from celery_app.worker.presence import unserved

if TYPE_CHECKING:
    from collections.abc import Iterable

    from celery_app.metrics.look import Look

Kind = Literal[
    "paused", "cap", "account", "shut", "overloaded", "budget", "prefix", "no_worker", "time", "slots", "dead", "broker"
]

#: What is short -> the kind of reason, where that is not the budget.
_KINDS: dict[str, Kind] = {OVERLOADED: "overloaded", CAP: "cap", PREFIX: "prefix"}

_MS_PER_S = 1_000


class Reason(NamedTuple):
    """One thing that has to happen before a job can leave.

    Attributes:
        kind: ``cap`` is money, ``account`` that the API refuses it, ``shut`` its ``retry-after``, ``overloaded`` a 529
            or no answer.
        words: as the end of a sentence that begins with "batch waits for"; or a sentence, "no worker serves batch".
    """

    kind: Kind
    words: str


def in_words(reasons: Iterable[Reason]) -> str | None:
    """Return all reasons as one text; None: nothing but a slot."""
    return "; ".join(each.words for each in reasons) or None


def lane_reasons(found: Look, name: str) -> list[Reason]:
    """Return what holds up the jobs of a lane; nothing: they wait for a slot."""
    lane = found.lanes[name]
    reasons = [*_paused(pauses_of(found.controls, name)), *_shut(shut_of(found.shut, name, found.now))]
    reasons += _short(lane.head)
    if lane.workers == 0 and (lane.place.depth or lane.place.returning):
        reasons.append(Reason("no_worker", unserved(name)))
    return reasons


def job_reasons(found: Shortage, shut: list[Shut], pauses: list[Control]) -> list[Reason]:
    """Return what holds up a job; nothing: it waits for a slot, or not at all.

    Args:
        found: what it is short of.
        shut: its budget, if the API has shut it.
        pauses: of its lane and its model.
    """
    reasons = []
    if found.state == "scheduled":
        reasons.append(Reason("time", f"its time, in {found.due_ms / _MS_PER_S:.1f} s"))
    if found.state != "queued":
        return reasons
    if found.short == "closed":
        reasons += _shut(shut)
    elif found.short == "paused":
        reasons += _paused(pauses)
    reasons += _short(found)
    if not found.has_worker:
        reasons.append(Reason("no_worker", unserved(found.lane)))
    return reasons


def _paused(pauses: list[Control]) -> list[Reason]:
    return [Reason("paused", each.words) for each in pauses]


def _short(found: Shortage) -> list[Reason]:
    kind: Kind = _KINDS.get(found.short, "budget")
    return [Reason(kind, found.words)] if found.words else []


def _shut(shut: list[Shut]) -> list[Reason]:
    return [Reason("account" if each.account else "shut", each.words) for each in shut]
