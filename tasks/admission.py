"""A job's way to the budget: admitted, it may call; denied, it waits a moment in its slot or returns to its lane."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import redis

from celery_app.away import say_away
from celery_app.broker.claims import is_claimed
from celery_app.broker.notes import REFUSED_AT
from celery_app.broker.verbs import CLOSE_GATE
from celery_app.budget import CALL_LEASES, Budget, Cost, Outcome, Settlement, Usage, budget_for
from celery_app.budget.budget import ANY_MODEL
from celery_app.budget.shut import SHUT, reasons_of
from celery_app.connection import key_prefix, redis_client
from celery_app.errors import AccountRefused, DeadlineExceeded, LanesError, NotAMessage, OutOfBudget, PromptTooLarge
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
        reason: why the API refused it, in words that anybody may read.
        settlement: what came of settling it; None before that, and where Redis is away.
    """

    reason = ""
    settlement: Settlement | None = None

    def __init__(self, budget: Budget, client: redis.Redis, ticket: str, refused_at: int = 0) -> None:
        """Keep what settling needs; `refused_at`: as in `Budget.conclude`."""
        self.usage: Usage | None = None
        self.headers: Mapping[str, str] | None = None
        self.outcome: Outcome = "answered"
        self._budget, self._client, self._ticket, self._refused_at = budget, client, ticket, refused_at
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
            say_away("the headers of an answer did not reach the budget", exc)

    def failed(self, outcome: Outcome, headers: Mapping[str, str] | None = None, reason: str = "") -> None:
        """Say how the call failed."""
        self.outcome, self.headers, self.reason = outcome, headers, reason

    @property
    def is_own(self) -> bool:
        """Whether its refusal is a verdict on its job alone, known once it is settled."""
        return self.settlement is not None and self.settlement.own

    @property
    def sent_at(self) -> int:
        """When it left: µs since the epoch, by Redis' clock."""
        return self._budget.sent_at(self._ticket)

    def settle(self) -> None:
        """Replace the estimate in the budget; where Redis is away it stands, and the call's lease ends it."""
        CALL_LEASES.let_go(self._ticket)
        try:
            self.settlement = self._budget.conclude(
                self._client,
                self._ticket,
                self.usage,
                self.headers,
                self.outcome,
                reason=self.reason,
                refused_at=self._refused_at,
            )
            say_settled(self._budget, self._client, self)
        except redis.RedisError as exc:
            say_away("a call could not be settled with the budget", exc)


def say_settled(budget: Budget, client: redis.Redis, call: Call) -> None:
    """Tell when a call has shut the budget, or opened it; open the gates of the lanes then.

    Raises:
        redis.exceptions.RedisError: if Redis is away.
    """
    lanes, models = ", ".join(budget.sharers), "" if budget.family == ANY_MODEL else f" of {budget.family}"
    if call.settlement is not None and call.settlement.shut:
        how = "refuses the account; one job a minute probes" if call.outcome == "refused" else "wants to be left alone"
        logger.warning("%s: the API has shut the budget%s, it %s: %s", lanes, models, how, call.reason)
    if call.settlement is not None and call.settlement.opened:
        logger.warning("%s: the API answers again, the budget%s is open", lanes, models)
        key = f"{budget.prefix}lanes:gates"
        closed = [gate for gate in _texts(client.hkeys(key)) if gate.partition("|")[0] in budget.sharers]
        if closed:
            client.hdel(key, *closed)


def _texts(names: Any) -> list[str]:
    return [name.decode() if isinstance(name, bytes) else name for name in names]


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

    @property
    def sent_at(self) -> int:
        """Nobody asks."""
        return 0


def admitted(task: LaneTask, cost: Cost, model: str) -> Call:
    """Return the task's call once the budget has admitted it.

    Raises:
        celery.exceptions.Retry: if that takes longer than `PATIENCE`, or the worker is about to stop; the job is back
            in its lane then, at its front.
        Cancelled: if the job was cancelled meanwhile.
        DeadlineExceeded: if it takes longer than the job has.
        PromptTooLarge: if no waiting would help.
        AccountRefused: if the API refuses the account, and the job is one that a person waits for.
    """
    if stand_in() is not None:
        return FreeCall()
    budget = budget_for(settings_of(task.app), task.lane, model, key_prefix(task.app))
    client = redis_client(task.app)
    try:
        return _wait_in_line(task, budget, client, cost)
    except LanesError:
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
            return Call(budget, client, admission.ticket, task.request.get(REFUSED_AT) or 0)
        elif (hopeless := _hopeless(task, admission)) is not None:
            raise hopeless
        else:
            wait = _bounded_wait(task, admission)
            _close_gate(task, client, budget.model, admission, wait)
            if time.monotonic() + wait > patient_until:
                error = OutOfBudget(wait=wait, dimension=_shortage(admission))
                # Its gate keeps a job of a shut budget in the lane, until it is open again.
                back_in = min(wait, LONGEST_GUESS) if admission.dimension == "closed" else wait
                task.return_to_lane(error, back_in, attempt_spent=False)
            _pause(task, wait)


def _hopeless(task: LaneTask, admission: Admission) -> LanesError | None:
    """Return what a denied job fails with at once, None for one that waits."""
    if admission.tokens:
        return PromptTooLarge(tokens=admission.tokens, limit=admission.limit)
    waits = is_claimed(task.request.properties) and not is_urgent(task)
    if not admission.account or waits:
        return None
    status, kind, text = (*admission.reason.split(" ", 2), "", "", "")[:3]
    refusal: dict[str, Any] = {"status": int(status)} if status.isdecimal() else {}
    return AccountRefused(reason=admission.reason, type=kind.rstrip(":"), text=text, **refusal)


def is_urgent(task: LaneTask) -> bool:
    """Whether a person waits for the job in hand: it would rather fail than wait for the account to be put in order."""
    return task.lane.name == settings_of(task.app).lanes[0].name


def shut_for(task: LaneTask) -> str:
    """Say which budgets of the job's lane the API has shut, and why; empty for none, and where Redis is away."""
    try:
        client = redis_client(task.app)
        shut: Any = client.hgetall(f"{key_prefix(task.app)}{SHUT}")
        seconds, _ = client.time()
    except redis.RedisError:
        return ""
    return "; ".join(reasons_of(shut, task.lane.name, seconds))


def _shortage(admission: Admission) -> str:
    """Say what a job waits for."""
    if admission.dimension != "closed":
        return str(admission.dimension)
    reason = f" ({admission.reason})" if admission.reason else ""
    if admission.account:
        return f"the API refuses the account{reason}"
    return f"the API has shut it for another {admission.shut_s:.0f} s{reason}"


def _ask(task: LaneTask, budget: Budget, client: redis.Redis, cost: Cost) -> Admission | None:
    """Ask the budget; None: Redis is away, and what cannot be accounted for is not admitted."""
    task.seconds_left()
    waited = time.time() - task.submitted_at
    try:
        return budget.admit(client, task.lane, cost, waited, waiter=task.request.id or "", bounded=True)
    except redis.RedisError as exc:
        say_away("the budget cannot be asked, the call waits", exc)
        return None


def _leave_line(task: LaneTask, budget: Budget, client: redis.Redis) -> None:
    """Hold nobody up: the budget would keep room for the job until the time that it was told."""
    try:
        budget.leave(client, task.lane, task.request.id or "")
    except redis.RedisError as exc:
        say_away("a job's place in the line could not be given up, it lapses", exc)


def _bounded_wait(task: LaneTask, admission: Admission) -> float:
    """Return the seconds until it is worth while to ask again."""
    wait = admission.wait_s
    if not admission.certain:
        return min(wait, LONGEST_GUESS)
    if task.deadline_at is not None and time.time() + wait > task.deadline_at:
        shut = f": {_shortage(admission)}" if admission.dimension == "closed" else ""
        allowed = task.deadline_at - task.submitted_at
        raise DeadlineExceeded(where=f"while it waited for the budget{shut}", allowed=allowed)
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
        say_away("a lane's gate could not be closed", exc)
