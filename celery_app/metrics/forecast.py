"""When a queued job will leave, if all goes on as it does: the later of what its budget and its slots allow.

What the budget allows ``scheduler/scripts/lib/forecast.lua`` reckons. Slots come free at Σ Lᵢ/Sᵢ a second, where Lᵢ of them
are busy for lane i and a call of it takes Sᵢ seconds (Little's law); those that end for the lanes above are theirs again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from celery_app.metrics.distribution import CALLS
from celery_app.metrics.slots import USUAL_CALL

if TYPE_CHECKING:
    from collections.abc import Iterable

    from celery_app.metrics.shortage import Shortage
    from celery_app.metrics.store import LaneActivity

#: Seconds that the length of a call is taken from.
CALLS_WINDOW = 60.0

_US_PER_S, _MS_PER_S = 1_000_000, 1_000


def expected_s(found: Shortage, happened: Iterable[LaneActivity]) -> float | None:
    """Return seconds until a job may leave; None: nobody knows.

    Args:
        found: what it is short of.
        happened: in each lane lately, in their order.
    """
    if found.state == "scheduled":
        return found.due_ms / _MS_PER_S
    if found.state != "queued" or not found.has_worker or found.allowed_us < 0:
        return None
    allowed = found.allowed_us / _US_PER_S
    if found.before < 0:
        return allowed
    free = sum(busy / _call_s(lane) for busy, lane in zip(found.slots, happened, strict=True))
    return max(allowed, (found.before + 1) / free) if free else None


def _call_s(lane: LaneActivity) -> float:
    return CALLS.mean(lane.counts) or CALLS.mean(lane.totals) or USUAL_CALL
