"""A job in hand: what is known of it, in the form in which it travels through `tasks`."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

from celery_app.broker.claims import (
    CANCELLED,
    REFUSED_AT,
    RESERVED_FOR,
    TICKET,
    TIMEOUTS,
    VERDICT,
    is_claimed,
    queue_of,
)
from celery_app.errors import DeadlineExceeded
from celery_app.jobs.headers import BATCH_HEADER, REPLY_HEADER
from celery_app.lanes import NORMAL, Lane
from celery_app.routing import DEADLINE_AT, MODEL, PREFIX, SUBMITTED_AT, TENANT, seconds
from celery_app.settings import settings_of
from celery_app.traced import Traced

#: Attribute of a request: the job that was read from it.
_KNOWN = "lanes_job"


@dataclass(slots=True)
class Attempt:
    """What has become of one attempt at a job.

    Attributes:
        drawn: whether the reservation that it came with has been used: each further call asks for one.
        called: whether one of its calls has left, which would be made and paid for again if the job returned.
        may_end: whether the job ends by itself, once that is decided; False: it was cancelled before.
        dead_letter: why the job is kept as a dead letter if it fails, and after how many tries; None: it is not.
    """

    drawn: bool = False
    called: bool = False
    may_end: bool | None = None
    dead_letter: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One attempt at a job, as its worker has got it.

    Attributes:
        app: the Celery application.
        request: Celery's own view of it, for whoever has to give Celery that.
        id: Celery's task id.
        task: name of its task.
        lane: with the application's settings; `normal` for a job that came from another queue.
        tenant: whose it is; empty: nobody's in particular.
        model: that it said it would call; empty where it did not say.
        prefix: the marked beginning of its prompt, where its lane asks for it; else empty.
        submitted_at: seconds since the epoch; now, where a stock producer did not say.
        deadline_at: seconds since the epoch after which it is pointless, or None.
        tries: attempts before this one.
        attempts: that it has in all.
        claim: the delivery tag under which a worker holds it; empty: it was not claimed from a lane's broker.
        ticket: of what was reserved for it; empty: nothing was.
        reserved_for: the model that it was reserved for.
        verdict: why it can only fail, see `celery_app.broker.claimed`; empty: there is no reason.
        timeouts: calls of it that took all of their time.
        refused_at: µs, by Redis' clock, at which its last call left that the API refused for now; 0: none was.
        cancelled: whether it was cancelled when it was claimed; None: nobody has looked.
        been_out: whether there was an attempt before.
        batch: id of the batch that it belongs to, or None.
        replies: whether its caller waits for it.
        is_eager: whether its caller runs it, in Celery's eager mode.
        is_sent: whether it came to this process as a message: nobody called its function, or `apply`.
        attempt: what has become of it since.
    """

    app: Any = field(repr=False)
    request: Any = field(repr=False)
    id: str
    task: str
    lane: Lane
    tenant: str
    model: str
    prefix: str
    submitted_at: float
    deadline_at: float | None
    tries: int
    attempts: int
    claim: str
    ticket: str
    reserved_for: str
    verdict: str
    timeouts: int
    refused_at: int
    cancelled: bool | None
    redelivered: bool
    batch: str | None
    replies: bool
    is_eager: bool
    is_sent: bool
    attempt: Attempt = field(default_factory=Attempt, compare=False)

    @classmethod
    def in_hand(cls, app: Any, task: str, request: Any, max_retries: int | None) -> Job:
        """Return the job of a request, always the same one; arguments as with `of`."""
        known: Job | None = request.get(_KNOWN)
        if known is None:
            known = cls.of(app, task, request, max_retries)
            if not request.called_directly:  # Celery has one request for all functions that are called outside of jobs
                setattr(request, _KNOWN, known)
        return known

    @classmethod
    def of(cls, app: Any, task: str, request: Any, max_retries: int | None = None) -> Job:
        """Return the job of one of Celery's requests.

        Args:
            app: the Celery application.
            task: name of its task.
            request: as a task has it.
            max_retries: of the task; None: the lane decides.
        """
        settings, properties, delivery = settings_of(app), request.properties or {}, request.delivery_info or {}
        lane = settings.lane(queue_of(properties, delivery)) or settings.lane(NORMAL.name) or NORMAL
        claimed, retries = is_claimed(properties) and not request.called_directly, request.retries or 0
        cancelled = properties.get(CANCELLED)
        return cls(
            app=app,
            request=request,
            id=request.id or "",
            task=task,
            lane=lane,
            tenant=str(request.get(TENANT) or ""),
            model=str(request.get(MODEL) or ""),
            prefix=str(request.get(PREFIX) or ""),
            submitted_at=seconds(request.get(SUBMITTED_AT)) or time.time(),
            deadline_at=seconds(request.get(DEADLINE_AT)),
            tries=retries,
            attempts=lane.attempts if max_retries is None else max_retries + 1,
            claim=properties["delivery_tag"] if claimed else "",
            ticket=str(properties.get(TICKET) or ""),
            reserved_for=str(properties.get(RESERVED_FOR) or ""),
            verdict=str(properties.get(VERDICT) or ""),
            timeouts=request.get(TIMEOUTS) or 0,
            refused_at=request.get(REFUSED_AT) or 0,
            cancelled=None if cancelled is None else bool(cancelled),
            redelivered=bool(retries or delivery.get("redelivered")),
            batch=request.get(BATCH_HEADER),
            replies=bool(request.get(REPLY_HEADER)),
            is_eager=bool(request.is_eager),
            is_sent=not (request.called_directly or request.is_eager),
        )

    def traced(self, model: str = "") -> Traced:
        """Return what a trace says of it; `model`: what a call of it asks, where that is known."""
        return Traced(self.lane.name, self.task, self.id, model or self.model, self.tenant, self.tries + 1)

    @property
    def is_urgent(self) -> bool:
        """Whether a person waits for it: it would rather fail than wait for the account to be put in order."""
        return self.lane.name == settings_of(self.app).lanes[0].name

    def seconds_left(self) -> float:
        """Return the seconds that one call may take: what is left of the deadline, at most the lane's ``call_timeout``.

        Raises:
            DeadlineExceeded: if nothing is left.
        """
        left = self.until_deadline()
        if left <= 0:
            raise self.overdue("in the queue")
        return min(left, self.lane.call_timeout)

    def until_deadline(self) -> float:
        """Return the seconds until its deadline; infinite where it has none."""
        return math.inf if self.deadline_at is None else self.deadline_at - time.time()

    def overdue(self, where: str) -> DeadlineExceeded:
        """Return the error of a job whose deadline is over, or will be.

        Args:
            where: it was by then.
        """
        return DeadlineExceeded(where=where, allowed=(self.deadline_at or self.submitted_at) - self.submitted_at)
