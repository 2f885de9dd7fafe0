"""A job as a test sees it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from celery.states import PENDING

if TYPE_CHECKING:
    from celery_app.lanes import Lane


@dataclass(slots=True, eq=False)
class Job:
    """A job that was submitted.

    Attributes:
        id: of the job, Celery's task id.
        lane: its name.
        task: the task's name.
        args: its positional arguments, as JSON gives them back.
        params: its keyword arguments, likewise; of a call, the Messages API's parameters.
        headers: of the message.
        state: Celery's: ``PENDING`` while it is held, then ``SUCCESS``, ``FAILURE``, ``REVOKED``, …
        result: what it returned, of a call its message; the exception, if it failed.
        attempts: how often it ran.
    """

    id: str
    lane: str
    task: str
    args: list[Any]
    params: dict[str, Any]
    headers: dict[str, Any] = field(repr=False)
    state: str = PENDING
    result: Any = None
    attempts: int = 0
    #: What is ours: where it runs, and the rest of its message.
    app: Any = field(default=None, repr=False)
    of: Lane | None = field(default=None, repr=False)
    request: dict[str, Any] = field(default_factory=dict, repr=False)
