"""A call of the API that the budget has admitted: what becomes of it is told here."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import redis

from celery_app.broker.claims import claim_of
from celery_app.broker.returns import settle_later
from celery_app.budget import Budget, CallEnd, CallOutcome, Settlement, Usage
from celery_app.budget.bill import Payer, bill_of
from celery_app.budget.budget import ANY_MODEL, NO_JOB
from celery_app.budget.reservation import Warned
from celery_app.errors import NotAMessage
from celery_app.keys import ENDED_KEPT
from celery_app.metrics.events import JobEvent, Kind, emit
from celery_app.process.away import say_away
from celery_app.scheduler.scripts import CHARGE
from celery_app.settings import settings_of
from tasks.spending import say_nearly_spent

if TYPE_CHECKING:
    from celery_app.broker.lease import Leases
    from celery_app.settings import Settings
    from tasks.job import Job

logger = logging.getLogger(__name__)


class Call:
    """An admitted call; what becomes of it is told here, and settled when its block ends.

    Attributes:
        usage: tokens used; None: not known, the estimate stands.
        headers: of the answer, whose limits the budget learns.
        outcome: how the call ended.
        reason: why the API refused it, in words that anybody may read.
        settlement: what came of settling it; None before that, and where Redis is away.
        ends_job: whether its job ends with its answer: settling decides then whether it was cancelled before.
        shipped: whether it was part of a message batch of the API's, and so cheaper.
    """

    reason = ""
    settlement: Settlement | None = None
    ends_job = False
    shipped = False
    #: The answer that its job came with, as JSON; None: a call has to be made.
    answer: bytes | None = None

    def __init__(
        self, budget: Budget, client: redis.Redis, ticket: str, job: Job, leases: Leases | None = None
    ) -> None:
        self.usage: Usage | None = None
        self.headers: Mapping[str, str] | None = None
        self.outcome: CallOutcome = "answered"
        self._budget, self._client, self._ticket, self._job = budget, client, ticket, job
        self._leases, self._begun = leases, time.monotonic()

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
            self._budget.hear(self._client, self._ticket, headers, self._job.prefix)
        except redis.RedisError as exc:
            say_away("the headers of an answer did not reach the budget", exc)

    def failed(self, outcome: CallOutcome, headers: Mapping[str, str] | None = None, reason: str = "") -> None:
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
        took = time.monotonic() - self._begun  # before Redis is asked, which may be away
        ends = self._ends()
        end, bill = self._billed(
            CallEnd(self.usage, self.headers, self.outcome, self.reason, self._job.refused_at, self._job.prefix),
            time.time(),
        )
        try:
            self.settlement = self._budget.settle(self._client, self._ticket, end, ends=ends or NO_JOB, bill=bill)
            if ends is not None:
                self._job.attempt.may_end = not self.settlement.cancelled
            say_settled(self._budget, self)
            for warned in self.settlement.warnings:
                say_nearly_spent(settings_of(self._job.app), warned)
        except redis.RedisError as exc:
            say_away("a call could not be settled with the budget", exc)
            settle_later(self._job.app, self._claim, self._budget.settling(self._ticket, end, bill=bill))
        if self._leases is not None:
            self._leases.ack(*self._claim)
        self._tell_observers(took, end.status)

    def _billed(self, end: CallEnd, now: float) -> tuple[CallEnd, str]:
        """Return the end with its price, and the bill; none for a call that was not made, or that the API refused."""
        settings = settings_of(self._job.app)
        if not settings.prices or end.outcome not in {"answered", "failed"} or end.status:
            return end, ""
        payer = Payer(self._job.lane.name, self._budget.model, self._job.tenant, self._job.batch or "")
        usage, bill = bill_of(settings, payer, self.usage, now, shipped=self.shipped)
        return replace(end, usage=usage), bill

    def _tell_observers(self, took: float, status: int, kind: Kind = "settled") -> None:
        event = JobEvent(
            kind=kind,
            lane=self._job.lane.name,
            task=self._job.task,
            seconds=took,
            outcome=self.outcome,
            status=status,
            tokens=(self.usage.input_tokens, self.usage.output_tokens) if self.usage else None,
        )
        emit(event)

    def _ends(self) -> tuple[str, str, int] | None:
        """Return which job ends with the answer, if one does."""
        if not self.ends_job or self.outcome != "answered" or not self._job.is_sent:
            return None
        return self._job.id, self._job.batch or "", ENDED_KEPT


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
        self.usage: Usage | None = None
        self.headers: Mapping[str, str] | None = None
        self.outcome: CallOutcome = "answered"

    def begun(self, headers: Mapping[str, str]) -> None:
        """Learn nothing."""

    def settle(self) -> None:
        """Owe nothing."""

    @property
    def sent_at(self) -> int:
        """Nobody asks."""
        return 0


class LandedCall(FreeCall):
    """A call that was made as part of a batch of the API's: its job is run with its answer at hand."""

    def __init__(self, job: Job, client: redis.Redis, prefix: str, answer: bytes) -> None:
        super().__init__()
        self._job, self._client, self._prefix, self.answer = job, client, prefix, answer

    def settle(self) -> None:
        """Owe no budget anything; write down what it has cost, and count what it used."""
        settings = settings_of(self._job.app)
        if settings.prices:
            self._charge(settings)
        self._tell_observers(0.0, 0, "landed")

    def _charge(self, settings: Settings) -> None:
        job = self._job
        payer = Payer(job.lane.name, job.model, job.tenant, job.batch or "")
        usage, bill = bill_of(settings, payer, self.usage, time.time(), shipped=True)
        usd = CallEnd(usage, outcome=self.outcome, reason=self.reason).usd
        if usd < 0:
            return  # nobody says, or the job comes back: what it took of caps stays taken
        # An error is free: there is no bill, and what it took of caps is given back.
        arguments = (self._prefix, claim_of(job.claim)[0], "" if usage is None else bill, usd)
        try:
            for row in CHARGE.run(self._client, (), arguments):
                say_nearly_spent(settings, Warned.of(row))
        except redis.RedisError as exc:
            say_away("the cost of a shipped job is not written down", exc)
