"""The one event, and the observers that hear of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

logger = logging.getLogger(__name__)

Kind = Literal["called", "settled", "landed", "processed", "failed", "returned", "limited"]


@dataclass(frozen=True, slots=True)
class JobEvent:
    """Something that happened to a job.

    Attributes:
        kind: ``called`` (its API call leaves now), ``settled`` (a call is over), ``landed`` (the
            same of one that was part of a batch of the API's), ``processed`` or ``failed`` (it
            ended), ``returned`` (it goes back to its lane), ``limited`` (the API answered 429).
        lane: the lane's name.
        task: the task's name.
        seconds: for ``called``, from submission to the call leaving; for ``settled``, that the call took; else 0.
        outcome: for these two, how the call ended, as `celery_app.budget.CallOutcome` has it.
        status: for ``settled``, the API's status where it refused; 0: it did not, or nobody knows.
        tokens: for ``settled`` and ``landed``, input and output tokens that the call used; None: not known.
    """

    kind: Kind
    lane: str
    task: str
    seconds: float = 0.0
    outcome: str = ""
    status: int = 0
    tokens: tuple[int, int] | None = None


Observer = Callable[[JobEvent], None]

_observers: list[Observer] = []


def subscribe(observer: Observer) -> None:
    """Have `observer` called with every event of this process; it must be quick and thread-safe."""
    if observer not in _observers:
        _observers.append(observer)


def unsubscribe(observer: Observer) -> None:
    """Undo `subscribe`; an observer that is not subscribed is none the worse."""
    if observer in _observers:
        _observers.remove(observer)


def emit(event: JobEvent) -> None:
    """Tell every observer; one that fails must not fail the job."""
    for observer in tuple(_observers):
        try:
            observer(event)
        except Exception:
            logger.exception("observer %r failed on %s", observer, event.kind)
