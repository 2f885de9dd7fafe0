"""Waits: how long jobs waited from their submission until their call reached the API."""

from __future__ import annotations

import bisect
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from demo.job import Job

#: Percentiles that are told.
PERCENTILES = (50, 95, 99)

RATE_LIMITED = 429


def first_arrivals(calls: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return user id -> seconds since the epoch at which its first call arrived, from the simulator's log of calls.

    A call that was turned away with 429 does not count: its job waits on.
    """
    arrivals: dict[str, float] = {}
    for call in calls:
        if call["user_id"] and call["status"] != RATE_LIMITED:
            arrivals.setdefault(call["user_id"], call["arrived"])
    return arrivals


def waits_ms(jobs: Iterable[Job], arrivals: Mapping[str, float]) -> list[float]:
    """Return the wait of each job that reached the API, in ms."""
    return [1_000 * (arrivals[job.user_id] - job.submitted) for job in jobs if job.user_id in arrivals]


def while_queued(jobs: Iterable[Job], others: Sequence[Job], arrivals: Mapping[str, float], at_least: int) -> list[Job]:
    """Return those jobs during whose whole wait at least so many others were queued: submitted, and not at the API.

    The others are submitted once and then only leave, so it is enough to look at a wait's beginning and its end.
    """
    came = sorted(job.submitted for job in others)
    left = sorted(arrivals[job.user_id] for job in others if job.user_id in arrivals)

    def queued(at: float) -> int:
        return bisect.bisect_right(came, at) - bisect.bisect_right(left, at)

    arrived = [job for job in jobs if job.user_id in arrivals]
    return [job for job in arrived if min(queued(job.submitted), queued(arrivals[job.user_id])) >= at_least]


def summary(values: Iterable[float]) -> dict[str, float | None]:
    """Return p50, p95, p99 (by nearest rank) and max; None where there is no value."""
    ordered = sorted(values)
    ranks = {f"p{percent}": math.ceil(percent / 100 * len(ordered)) - 1 for percent in PERCENTILES}
    ranks["max"] = len(ordered) - 1
    return {name: round(ordered[rank], 1) if ordered else None for name, rank in ranks.items()}
