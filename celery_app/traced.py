"""A job, as a trace tells of it."""

from __future__ import annotations

from typing import NamedTuple


class Traced(NamedTuple):
    """What a span says of a job: no argument, no result, no key.

    Attributes:
        lane: its lane's name.
        task: name of its task.
        id: Celery's task id.
        model: that it will call; empty: it did not say.
        tenant: whose it is; empty: nobody's in particular.
        attempt: number of this one, from 1.
    """

    lane: str
    task: str
    id: str
    model: str
    tenant: str
    attempt: int
