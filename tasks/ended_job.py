"""A job that ended in Redis, and its end for whoever waits."""

from __future__ import annotations

import json
import logging
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import redis
from celery.app.task import Context
from celery.backends.base import DisabledBackend
from celery.exceptions import NotRegistered
from celery.states import PENDING, READY_STATES, SUCCESS

from celery_app.broker.body import read_body
from celery_app.broker.packet import is_text
from celery_app.errors import Buried, Cancelled, DeadlineExceeded, KilledItsWorker
from celery_app.results.backend import backend_of
from celery_app.tracing import ended
from tasks.base import LaneTask
from tasks.endings import cancelled, may_end, tell_monitors
from tasks.job import Job
from tasks.outcome import tell_ended
from tasks.start import in_queue

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

#: How a job may end in Redis, beside being cancelled.
BURIED, OVERDUE = "buried", "deadline"

#: How the broker's scripts begin the reason of a job that took its worker along.
_KILLED = ("its worker died", "rejected ")

#: Likewise of one for a task that a worker did not know.
_UNKNOWN = "unknown task "


@dataclass(frozen=True, slots=True)
class EndedJob:
    """A job that nobody will work on any more.

    Attributes:
        job: as its task would have it.
        error: why; None: it was cancelled.
    """

    job: Job
    error: Exception | None

    @classmethod
    def read(
        cls, app: Any, queue: str, ending: str, reason: str, allowed: float, text: bytes | None
    ) -> EndedJob | None:
        """Return the job of a message; None for one that is no job."""
        try:
            request = _request_in(json.loads(text or b""), queue)
        except Exception:  # noqa: BLE001 - a stock producer may have written anything
            return None
        context = Context(request, called_directly=False, is_eager=False)
        job = Job.in_hand(app, context.task, context, None)
        job.attempt.dead_letter = (reason, job.tries) if ending == BURIED else None  # it is kept already
        return cls(job, _error_of(app, queue, ending, reason, allowed))

    def tell(self) -> None:
        """End the job, for its caller, its callbacks, its chord, its batch, its readers and the figures; once.

        A worker that dies in the middle leaves the rest to another: what was told is told again, and heard once.
        """
        job = self.job
        if self.error is None or not may_end(job):
            with suppress(Cancelled):
                cancelled(job)
            self._trace("cancelled")
        elif self._fail(job, self.error):
            tell_monitors(job, "task-failed", exception=repr(self.error), traceback="")
            if isinstance(self.error, DeadlineExceeded):
                self._trace("deadline")

    def _trace(self, outcome: str) -> None:
        ended(self.job.traced(), self.job.request, self.job.submitted_at, outcome)

    def _fail(self, job: Job, error: Exception) -> bool:
        """Fail the job; return False if another worker had its result stored after all."""
        task, request = job.app.tasks.get(job.task), job.request
        backend = backend_of(job.app) if task is None else task.backend
        state = PENDING if isinstance(backend, DisabledBackend) else backend.get_state(job.id)
        if state == SUCCESS:
            return False
        if state not in READY_STATES:
            stored = not (request.ignore_result or getattr(task, "ignore_result", False))
            backend.mark_as_failure(job.id, error, request=request, store_result=stored)
        if not (isinstance(task, LaneTask) and _called(task, request, error)):
            tell_ended(job, "failed", error)  # of another task somebody may ask, too
        return True


def _called(task: LaneTask, request: Any, error: Exception) -> bool:
    """Call a task's ``on_failure``; return whether it went well: a project's own has nothing to end any more."""
    try:
        with _in_hand(task, request):
            task.on_failure(error, request.id, request.args, request.kwargs, None)
    except redis.RedisError:
        raise
    except Exception as exc:  # noqa: BLE001 - whatever it is, it would be called every minute
        logger.warning("%s[%s]: its on_failure raised %s", task.name, request.id, type(exc).__name__)
        return False
    return True


def _error_of(app: Any, queue: str, ending: str, reason: str, allowed: float) -> Exception | None:
    if ending == BURIED and reason.startswith(_UNKNOWN):
        unknown: Exception = NotRegistered(reason)
        return unknown
    if ending == BURIED:
        return (KilledItsWorker if reason.startswith(_KILLED) else Buried)(reason=reason)
    if ending == OVERDUE:
        return DeadlineExceeded(where=in_queue(app, queue), allowed=allowed)
    return None


@contextmanager
def _in_hand(task: LaneTask, request: Any) -> Iterator[None]:
    task.request_stack.push(request)
    try:
        yield
    finally:
        task.request_stack.pop()


def _request_in(message: Any, queue: str) -> dict[str, Any]:
    """Return what a task would see of a message of kombu's, as Celery's worker puts it together."""
    headers, properties = message["headers"], message["properties"]
    try:
        args, kwargs, embed = read_body(message)
    except Exception:  # noqa: BLE001 - the headers say enough for a result
        args, kwargs, embed = [], {}, {}
    known = {"args": args, "kwargs": kwargs, "properties": properties, "reply_to": properties.get("reply_to")}
    info = {**(properties.get("delivery_info") or {}), "routing_key": queue}
    if not is_text(headers["id"]):
        raise TypeError  # nobody waits for it
    task = headers["task"] if isinstance(headers["task"], str) else "?"
    return {**headers, **known, "delivery_info": info, "task": task, **embed}
