"""A call's way to the budget: most jobs come with their reservation; the others wait in line for one."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import redis
from celery.exceptions import Ignore

from celery_app.away import say_away
from celery_app.broker.claims import DECIDED, REFUSED_AT, RESERVED_FOR, TICKET, VERDICT, claim_of, is_claimed
from celery_app.broker.entry import cost_header
from celery_app.broker.holders import call_leases
from celery_app.broker.returns import settle_later
from celery_app.budget import Budget, Cost, Outcome, Settlement, Usage, budget_for
from celery_app.budget.budget import ANY_MODEL
from celery_app.budget.shut import reasons_of
from celery_app.connection import heartbeat_client, key_prefix, redis_client
from celery_app.errors import AccountRefused, LanesError, NotAMessage, OutOfBudget, PromptTooLarge
from celery_app.job_headers import BATCH_HEADER
from celery_app.keys import ENDED_KEPT, SHUT
from celery_app.settings import settings_of
from celery_app.stand_in import stand_in
from celery_app.stopping import told_to_end, told_to_finish
from tasks.cancelling import running
from tasks.endings import REFUSES_ACCOUNT, keep_if_failed

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery_app.broker.lease import Leases
    from celery_app.budget import Reservation
    from tasks.base import LaneTask

logger = logging.getLogger(__name__)

#: Seconds after which a call that waits in its slot asks again at the latest: as soon as a call in flight turns out
#: cheaper than was estimated, the budget has room; and the scheduler keeps its place for two.
LONGEST_GUESS = 1.0

#: Seconds between two tries while Redis is away.
AWAY_PAUSE = 0.5

#: Attribute of a request: its reservation has been used, and each further call asks for one.
USED = "lanes_reservation_used"

#: The facts of a job that are its cost, as ``scheduler/scripts/lib/jobs.lua`` names them.
_COST_FACTS = ("requests", "input_tokens", "characters", "output_tokens", "max_tokens", "whole")


class Call:
    """An admitted call; what becomes of it is told here, and settled when its block ends.

    Attributes:
        usage: tokens used; None: not known, the estimate stands.
        headers: of the answer, whose limits the budget learns.
        outcome: how the call ended.
        reason: why the API refused it, in words that anybody may read.
        settlement: what came of settling it; None before that, and where Redis is away.
        ends_job: whether its job ends with its answer: settling decides then whether it was cancelled before.
    """

    reason = ""
    settlement: Settlement | None = None
    ends_job = False

    def __init__(
        self, budget: Budget, client: redis.Redis, ticket: str, task: LaneTask, leases: Leases | None = None
    ) -> None:
        """Keep what settling needs; `leases` hold a call that its job did not come with."""
        self.usage: Usage | None = None
        self.headers: Mapping[str, str] | None = None
        self.outcome: Outcome = "answered"
        self._budget, self._client, self._ticket, self._task = budget, client, ticket, task
        self._leases = leases

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
    def _claim(self) -> tuple[str, str]:
        """Id and token under which it is held: at the end of its ticket."""
        return claim_of(self._ticket.split(" ", 8)[8])

    @property
    def sent_at(self) -> int:
        """When it left: µs since the epoch, by Redis' clock."""
        return self._budget.sent_at(self._ticket)

    def settle(self) -> None:
        """Replace the estimate in the budget; where Redis is away that is done before the job ends."""
        ends, refused_at = self._ends(), self._task.request.get(REFUSED_AT) or 0
        said = (self._ticket, self.usage, self.headers, self.outcome, self.reason, refused_at)
        try:
            self.settlement = self._budget.conclude(self._client, *said, ends=ends or ("", "", 0))
            if ends is not None:
                setattr(self._task.request, DECIDED, not self.settlement.cancelled)
            say_settled(self._budget, self)
        except redis.RedisError as exc:
            say_away("a call could not be settled with the budget", exc)
            settle_later(self._task.app, self._claim, self._budget.settling(*said))
        if self._leases is not None:
            self._leases.ack(*self._claim)

    def _ends(self) -> tuple[str, str, int] | None:
        """Return which job ends with the answer, if one does."""
        request = self._task.request
        if not self.ends_job or self.outcome != "answered" or request.called_directly or request.is_eager:
            return None
        return request.id, request.get(BATCH_HEADER) or "", ENDED_KEPT


def say_settled(budget: Budget, call: Call) -> None:
    """Tell when a call has shut the budget, or opened it."""
    lanes, models = ", ".join(budget.sharers), "" if budget.family == ANY_MODEL else f" of {budget.family}"
    if call.settlement is not None and call.settlement.shut:
        how = "refuses the account; one job a minute probes" if call.outcome == "refused" else "wants to be left alone"
        logger.warning("%s: the API has shut the budget%s, it %s: %s", lanes, models, how, call.reason)
    if call.settlement is not None and call.settlement.opened:
        logger.warning("%s: the API answers again, the budget%s is open", lanes, models)


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
    """Return the task's call once the budget has room for it.

    Raises:
        celery.exceptions.Retry: if it has none now, or the worker is about to stop; the job is back at its place
            then, and comes out again with its reservation.
        Cancelled: if the job was cancelled meanwhile.
        DeadlineExceeded: if it takes longer than the job has.
        PromptTooLarge: if no waiting would help.
        AccountRefused: if the API refuses the account, and the job is one that a person waits for.
    """
    if stand_in() is not None:
        return FreeCall()
    budget = budget_for(settings_of(task.app), task.lane, model, key_prefix(task.app))
    client = redis_client(task.app)
    task.seconds_left()
    ticket = _ticket_of(task, model)
    if ticket:
        setattr(task.request, CALLED, True)
        return Call(budget, client, ticket, task)
    return _waited_for(task, budget, client, cost)


def _ticket_of(task: LaneTask, model: str) -> str:
    """Return the ticket that a job came with, once; one for another model is given back.

    Raises:
        LanesError: why it came without one, if it can only fail.
    """
    properties = task.request.properties or {}
    if task.request.get(USED):
        return ""
    setattr(task.request, USED, True)
    ticket, reserved_for = str(properties.get(TICKET) or ""), str(properties.get(RESERVED_FOR) or "")
    if model != reserved_for:
        if ticket:
            other = budget_for(settings_of(task.app), task.lane, reserved_for, key_prefix(task.app))
            unsent = Call(other, redis_client(task.app), ticket, task)
            unsent.failed("unsent")
            unsent.settle()
        return ""
    verdict, _, rest = str(properties.get(VERDICT) or "").partition(" ")
    if verdict == "account":
        raise _account_refused(task, rest)
    if verdict == "large":
        tokens, limit = rest.split()
        raise PromptTooLarge(tokens=int(tokens), limit=int(limit))
    return ticket


def _waited_for(task: LaneTask, budget: Budget, client: redis.Redis, cost: Cost) -> Call:
    """Ask for a reservation; the first call of a job waits for it in its lane, any other in its slot."""
    has_job, leases = is_claimed(task.request.properties), call_leases(budget.prefix, heartbeat_client(task.app))
    job = claim_of(task.request.properties["delivery_tag"]) if has_job else ("", "")
    claim = (f"call-{uuid.uuid4().hex}", f"{leases.process}:call")
    may_return = has_job and not task.request.get(CALLED)
    while True:
        answer = _ask(task, lambda: budget.reserve(client, task.lane, cost, claim=claim, job=job, waits=not may_return))
        if answer is None:
            _pause(task, AWAY_PAUSE)
        elif answer.granted:
            setattr(task.request, CALLED, True)
            leases.hold(*claim)
            return Call(budget, client, answer.ticket, task, leases)
        elif answer.lost:
            raise Ignore  # its lease was over, and another worker does it
        elif (hopeless := _hopeless(task, answer, has_job=has_job)) is not None:
            raise hopeless
        elif may_return:
            error = OutOfBudget(wait=answer.wait_s, dimension=_shortage(answer))
            facts = dict(zip(_COST_FACTS, cost_header(cost), strict=True))
            task.return_to_lane(error, 0.0, attempt_spent=False, facts={**facts, "model": budget.model})
        else:
            _pause(task, min(answer.wait_s, LONGEST_GUESS))


#: Attribute of a request: one of its calls has left, which would be made and paid for again if the job returned.
CALLED = "lanes_called"


def _ask(task: LaneTask, reserve: Callable[[], Reservation]) -> Reservation | None:
    """Ask the budget; None: Redis is away, and what cannot be accounted for does not leave."""
    task.seconds_left()
    try:
        return reserve()
    except redis.RedisError as exc:
        say_away("the budget cannot be asked, the call waits", exc)
        return None


def _hopeless(task: LaneTask, answer: Reservation, *, has_job: bool) -> LanesError | None:
    """Return what a call fails with at once, None for one that waits."""
    if answer.tokens:
        return PromptTooLarge(tokens=answer.tokens, limit=answer.limit)
    waits = has_job and not is_urgent(task)
    return None if not answer.account or waits else _account_refused(task, answer.reason)


def _account_refused(task: LaneTask, reason: str) -> AccountRefused:
    keep_if_failed(task, f"{REFUSES_ACCOUNT}{reason}", task.request.retries)
    status, kind, text = (*reason.split(" ", 2), "", "", "")[:3]
    refusal: dict[str, Any] = {"status": int(status)} if status.isdecimal() else {}
    return AccountRefused(reason=reason, type=kind.rstrip(":"), text=text, **refusal)


def is_urgent(task: LaneTask) -> bool:
    """Whether a person waits for the job in hand: it would rather fail than wait for the account to be put in order."""
    return task.lane.name == settings_of(task.app).lanes[0].name


def shut_for(app: Any, lane: str) -> str:
    """Say which budgets of a lane the API has shut, and why; empty for none, and where Redis is away."""
    try:
        client = redis_client(app)
        shut: Any = client.hgetall(SHUT.of(key_prefix(app)))
        seconds, _ = client.time()
    except redis.RedisError:
        return ""
    return "; ".join(reasons_of(shut, lane, seconds))


def _shortage(answer: Reservation) -> str:
    """Say what a call waits for."""
    if answer.dimension != "closed":
        return str(answer.dimension)
    reason = f" ({answer.reason})" if answer.reason else ""
    if answer.account:
        return f"the API refuses the account{reason}"
    return f"the API has shut it for another {answer.shut_s:.0f} s{reason}"


def _pause(task: LaneTask, seconds: float) -> None:
    """Wait in the slot; a job that nobody wants any more, or whose worker stops, leaves it."""
    time.sleep(seconds)
    call = running()
    if call is not None and call.cancelled:
        task.end_cancelled()
    if told_to_finish() or told_to_end():
        task.return_to_lane(OutOfBudget(wait=0.0, dimension="its worker stops"), 0.0, attempt_spent=False)
