"""A job's way to the budget: admitted, it may call; denied, it waits a moment in its slot or returns to its lane."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import redis

from celery_app.broker.claims import is_claimed
from celery_app.broker.verbs import CLOSE_GATE
from celery_app.budget import CALL_LEASES, Budget, Cost, Outcome, Usage, budget_for
from celery_app.connection import key_prefix, redis_client
from celery_app.errors import Cancelled, DeadlineExceeded, NotAMessage, OutOfBudget
from celery_app.settings import settings_of
from celery_app.stand_in import stand_in
from celery_app.stopping import told_to_end, told_to_finish
from tasks.cancelling import running

if TYPE_CHECKING:
    from celery_app.budget import Admission
    from tasks.base import LaneTask

logger = logging.getLogger(__name__)

#: Seconds that a denied job waits in its slot at most, all its waits together. Returning it costs about as much as a
#: round trip through the broker and a line in Flower; a slot that waits longer could serve a job of another model.
PATIENCE = 0.25

#: Milliseconds for which a gate that has opened closes again behind each job: about the time until that job has asked
#: the budget, but never more than a part of the wait, so that a fast budget is not slowed down.
LONGEST_PACE = 5
_PACE_SHARE = 0.25

#: Seconds after which a job asks again that was told a longer time which is no more than a guess: as soon as a call in
#: flight turns out cheaper than was estimated, the budget has room.
LONGEST_GUESS = 1.0

#: Seconds between two tries while Redis is away.
AWAY_PAUSE = 0.5


class Call:
    """An admitted call; what becomes of it is told here, and settled when its block ends.

    Attributes:
        usage: tokens used; None: not known, the estimate stands.
        headers: of the answer, whose limits the budget learns.
        outcome: how the call ended.
    """

    def __init__(self, budget: Budget, client: redis.Redis, ticket: str) -> None:
        """Keep what settling needs."""
        self.usage: Usage | None = None
        self.headers: Mapping[str, str] | None = None
        self.outcome: Outcome = "answered"
        self._budget, self._client, self._ticket = budget, client, ticket
        CALL_LEASES.hold(budget, client, ticket)

    def answered(self, message: Any, headers: Mapping[str, str] | None = None) -> None:
        """Take the tokens from a message, as the SDK's object or as a dict, and the limits from its headers.

        Raises:
            NotAMessage: it is neither; the block ends with it, and the job is tried again.
        """
        if not isinstance(message, Mapping):
            if not hasattr(message, "model_dump"):  # the SDK gives a page of HTML as a string
                raise NotAMessage(status=200, content_type=f"a {type(message).__name__}")
            message = message.model_dump()
        self.usage, self.headers = Usage.of(message), headers

    def begun(self, headers: Mapping[str, str]) -> None:
        """Take the limits from the headers of an answer that will take a while."""
        try:
            self._budget.hear(self._client, self._ticket, headers)
        except redis.RedisError as exc:
            logger.warning("the headers of an answer did not reach the budget: %s", exc)

    def failed(self, outcome: Outcome, headers: Mapping[str, str] | None = None) -> None:
        """Say how the call failed."""
        self.outcome, self.headers = outcome, headers

    def settle(self) -> None:
        """Replace the estimate in the budget; where Redis is away it stands, and the call's lease ends it."""
        CALL_LEASES.let_go(self._ticket)
        try:
            self._budget.settle(self._client, self._ticket, self.usage, self.headers, self.outcome)
        except redis.RedisError as exc:
            logger.warning("a call could not be settled with the budget: %s", exc)


class FreeCall(Call):
    """A call that nothing is drawn on for, because no API is asked."""

    def __init__(self) -> None:
        """Hold nothing."""
        self.usage: Usage | None = None
        self.headers: Mapping[str, str] | None = None
        self.outcome: Outcome = "answered"

    def begun(self, headers: Mapping[str, str]) -> None:
        """Learn nothing."""

    def settle(self) -> None:
        """Owe nothing."""


def admitted(task: LaneTask, cost: Cost, model: str) -> Call:
    """Return the task's call once the budget has admitted it.

    Raises:
        celery.exceptions.Retry: if that takes longer than `PATIENCE`, or the worker is about to stop; the job is back
            in its lane then, at its front.
        Cancelled: if the job was cancelled meanwhile.
        DeadlineExceeded: if it takes longer than the job has.
    """
    if stand_in() is not None:
        return FreeCall()
    budget = budget_for(settings_of(task.app), task.lane, model, key_prefix(task.app))
    client = redis_client(task.app)
    try:
        return _wait_in_line(task, budget, client, cost)
    except (Cancelled, DeadlineExceeded):
        _leave_line(task, budget, client)
        raise


def _wait_in_line(task: LaneTask, budget: Budget, client: redis.Redis, cost: Cost) -> Call:
    # Called directly or eagerly, a task has no lane to go back to.
    patience = PATIENCE if is_claimed(task.request.properties) else task.lane.call_timeout
    patient_until = time.monotonic() + patience
    while True:
        admission = _ask(task, budget, client, cost)
        if admission is None:
            _pause(task, AWAY_PAUSE)
        elif admission.granted:
            return Call(budget, client, admission.ticket)
        else:
            wait = _bounded_wait(task, admission)
            _close_gate(task, client, budget.model, admission, wait)
            if time.monotonic() + wait > patient_until:
                task.return_to_lane(OutOfBudget(wait=wait, dimension=admission.dimension), wait, attempt_spent=False)
            _pause(task, wait)


def _ask(task: LaneTask, budget: Budget, client: redis.Redis, cost: Cost) -> Admission | None:
    """Ask the budget; None: Redis is away, and what cannot be accounted for is not admitted."""
    task.seconds_left()
    waited = time.time() - task.submitted_at
    try:
        return budget.admit(client, task.lane, cost, waited, waiter=task.request.id or "")
    except redis.RedisError as exc:
        logger.warning("the budget cannot be asked, the call waits: %s", exc)
        return None


def _leave_line(task: LaneTask, budget: Budget, client: redis.Redis) -> None:
    """Hold nobody up: the budget would keep room for the job until the time that it was told."""
    try:
        budget.leave(client, task.lane, task.request.id or "")
    except redis.RedisError as exc:
        logger.warning("a job's place in the line could not be given up, it lapses: %s", exc)


def _bounded_wait(task: LaneTask, admission: Admission) -> float:
    """Return the seconds until it is worth while to ask again."""
    wait = admission.wait_s
    if not admission.certain:
        return min(wait, LONGEST_GUESS)
    if task.deadline_at is not None and time.time() + wait > task.deadline_at:
        raise DeadlineExceeded(where="while it waited for the budget", allowed=task.deadline_at - task.submitted_at)
    return wait


def _pause(task: LaneTask, seconds: float) -> None:
    """Wait in the slot; a job that nobody wants any more, or whose worker stops, leaves it."""
    time.sleep(seconds)
    call = running()
    if call is not None and call.cancelled:
        task.end_cancelled()
    if told_to_finish() or told_to_end():
        task.return_to_lane(OutOfBudget(wait=0.0, dimension="its worker stops"), 0.0, attempt_spent=False)


def _close_gate(task: LaneTask, client: redis.Redis, model: str, admission: Admission, wait: float) -> None:
    """Keep the lane's other jobs of this model in the broker meanwhile; without it they would only be denied, too."""
    said = task.model
    if said and said != model:
        return  # the jobs that say the same may call something else altogether
    # As the broker's scripts read it; see scripts/message.lua.
    name = said if said and json.dumps(said) == f'"{said}"' else f"task:{task.name}"
    wait_ms = max(1, round(wait * 1000))
    pace = max(1, min(LONGEST_PACE, round(wait_ms * _PACE_SHARE)))
    arguments = (task.lane.name, name, wait_ms, pace, int(admission.first))
    try:
        CLOSE_GATE.run(client, [f"{key_prefix(task.app)}lanes:gates"], arguments)
    except redis.RedisError as exc:
        logger.warning("a lane's gate could not be closed: %s", exc)
