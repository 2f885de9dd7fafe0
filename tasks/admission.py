"""A call's way to the budget: most jobs come with their reservation; the others wait in line for one."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

import redis
from celery.exceptions import Ignore

from celery_app.broker.claims import claim_of
from celery_app.broker.holders import call_leases
from celery_app.broker.packet import cost_header
from celery_app.budget import Budget, Cost, budget_for
from celery_app.budget.prices import priced
from celery_app.connections.redis_client import heartbeat_client, key_prefix, redis_client
from celery_app.errors import AccountRefused, LanesError, OutOfBudget, PromptTooLarge
from celery_app.process.away import say_away
from celery_app.settings import settings_of
from celery_app.stand_in import stand_in
from celery_app.stopping.told import cold_shutdown, warm_shutdown
from tasks.call import Call, FreeCall
from tasks.cancelling import running
from tasks.endings import REFUSES_ACCOUNT, cancelled, given_back, requeued

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery_app.budget import Reservation
    from tasks.job import Job

#: Seconds after which a call that waits in its slot asks again at the latest: as soon as a call in flight turns out
#: cheaper than was estimated, the budget has room; and the scheduler keeps its place for two.
LONGEST_GUESS = 1.0

#: Seconds between two tries while Redis is away.
AWAY_PAUSE = 0.5

#: The facts of a job that are its cost, as ``scheduler/scripts/lib/jobs.lua`` names them.
_COST_FACTS = ("requests", "input_tokens", "characters", "output_tokens", "max_tokens", "whole", "usd")


def admitted(job: Job, cost: Cost, model: str) -> Call:
    """Return a job's call once the budget has room for it.

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
    settings = settings_of(job.app)
    budget = budget_for(settings, job.lane, model, key_prefix(job.app))
    client = redis_client(job.app)
    job.seconds_left()
    ticket = _ticket_of(job, model)
    if ticket:
        job.attempt.called = True
        return Call(budget, client, ticket, job)
    return _waited_for(job, budget, client, priced(settings, model, cost))


def _ticket_of(job: Job, model: str) -> str:
    """Return the ticket that a job came with, once; one for another model is given back.

    Raises:
        LanesError: why it came without one, if it can only fail.
    """
    if job.attempt.drawn:
        return ""
    job.attempt.drawn = True
    if model != job.reserved_for:
        if job.ticket:
            other = budget_for(settings_of(job.app), job.lane, job.reserved_for, key_prefix(job.app))
            unsent = Call(other, redis_client(job.app), job.ticket, job)
            unsent.failed("unsent")
            unsent.settle()
        return ""
    verdict, _, rest = job.verdict.partition(" ")
    if verdict == "account":
        raise _account_refused(job, rest)
    if verdict == "large":
        tokens, limit = rest.split()
        raise PromptTooLarge(tokens=int(tokens), limit=int(limit))
    return job.ticket


def _waited_for(job: Job, budget: Budget, client: redis.Redis, cost: Cost) -> Call:
    """Ask for a reservation; the first call of a job waits for it in its lane, any other in its slot."""
    leases, held = call_leases(budget.prefix, heartbeat_client(job.app)), claim_of(job.claim) if job.claim else ("", "")
    claim = (f"call-{uuid.uuid4().hex}", f"{leases.process}:call")
    may_return = bool(job.claim) and not job.attempt.called
    while True:
        answer = _ask(job, lambda: budget.reserve(client, job.lane, cost, claim=claim, job=held, waits=not may_return))
        if answer is None:
            _pause(job, AWAY_PAUSE)
        elif answer.granted:
            job.attempt.called = True
            leases.register(*claim)
            return Call(budget, client, answer.ticket, job, leases)
        elif answer.lost:
            raise Ignore  # its lease was over, and another worker does it
        elif (hopeless := _hopeless(job, answer)) is not None:
            raise hopeless
        elif may_return:
            error = OutOfBudget(wait=answer.wait_s, dimension=_shortage(answer))
            facts = dict(zip(_COST_FACTS, (*cost_header(cost), 0), strict=False))  # the last: 0 where it is not known
            raise requeued(job, error, 0.0, attempt_spent=False, facts={**facts, "model": budget.model})
        else:
            _pause(job, min(answer.wait_s, LONGEST_GUESS))


def _ask(job: Job, reserve: Callable[[], Reservation]) -> Reservation | None:
    """Ask the budget; None: Redis is away, and what cannot be accounted for does not leave."""
    job.seconds_left()
    try:
        return reserve()
    except redis.RedisError as exc:
        say_away("the budget cannot be asked, the call waits", exc)
        return None


def _hopeless(job: Job, answer: Reservation) -> LanesError | None:
    """Return what a call fails with at once, None for one that waits."""
    if answer.tokens:
        return PromptTooLarge(tokens=answer.tokens, limit=answer.limit)
    waits = job.claim and not job.is_urgent
    return None if not answer.account or waits else _account_refused(job, answer.reason)


def _account_refused(job: Job, reason: str) -> AccountRefused:
    job.attempt.dead_letter = (f"{REFUSES_ACCOUNT}{reason}", job.tries)
    status, kind, text = (*reason.split(" ", 2), "", "", "")[:3]
    refusal: dict[str, Any] = {"status": int(status)} if status.isdecimal() else {}
    return AccountRefused(reason=reason, type=kind.rstrip(":"), text=text, **refusal)


def _shortage(answer: Reservation) -> str:
    """Say what a call waits for."""
    if answer.dimension != "closed":
        return str(answer.dimension)  # of a cap `lanes why` has the rest: a worker's log has no amounts of money
    reason = f" ({answer.reason})" if answer.reason else ""
    if answer.account:
        return f"the API refuses the account{reason}"
    return f"the API has shut it for another {answer.shut_s:.0f} s{reason}"


def _pause(job: Job, seconds: float) -> None:
    """Wait in the slot; a job that nobody wants any more, or whose worker stops, leaves it."""
    time.sleep(seconds)
    call = running()
    if call is not None and call.cancelled:
        cancelled(job)
    if warm_shutdown() or cold_shutdown():
        raise given_back(job)
