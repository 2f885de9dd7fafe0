"""Job: one request of the demo on its way."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Job:
    """A submitted request and what became of it.

    Attributes:
        lane: its lane's name.
        user_id: `metadata.user_id` of the request, by which the simulator's log of calls names it.
        submitted: seconds since the epoch, just before it was handed to Celery.
        task_id: Celery's name for it.
        ended: seconds since the epoch when its result was seen; None before.
        error: what it failed with; None if it did not.
    """

    lane: str
    user_id: str
    submitted: float
    task_id: str
    ended: float | None = None
    error: str | None = None
