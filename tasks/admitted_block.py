"""The block around an admitted call: settled however it ends, its failure judged, its job ended or requeued."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from celery.exceptions import Retry, TaskPredicate

from celery_app.errors import ApiError
from celery_app.settings import settings_of
from celery_app.stand_in import refuse_eager
from celery_app.tracing import reserved
from tasks.admission import admitted
from tasks.cancelling import cancellable
from tasks.clients import unlogged
from tasks.endings import REFUSES_ACCOUNT, cancelled, dead, given_back, report, requeued
from tasks.failure import LIMITED_PAUSE, Failure, backoff
from tasks.failures import failure_of
from tasks.log_lines import say_refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery_app.budget import Cost
    from tasks.call import Call
    from tasks.cancelling import Running
    from tasks.job import Job

#: Calls of one job that may take all of their time and be repeated. The API was slow, perhaps; after two of them it is
#: the answer that is long, and each is generated and paid for.
MOST_TIMEOUTS = 1

#: Seconds for which a job stays away that the API refused because of the account: a little longer than until the next
#: probe (scheduler/scripts/lib/shut.lua), so that another job makes that one. If its call goes well, it was this job.
ACCOUNT_PAUSE = 61.0

#: The fact of a job that its call was refused, as ``scheduler/scripts/lib/jobs.lua`` names it.
REFUSED = "refused_at"

#: Fraction of the time allowed from which on a call has taken all of it: the block does something before it, too.
_NEARLY = 0.9


@contextmanager
def admitted_block(job: Job, cost: Cost, model: str) -> Iterator[Call]:
    """Admit a call to the budget, and do with its job what its failure means.

    Raises:
        EagerRefused: ``task_always_eager`` is set, and `celery_app.testing` does not stand in for the lanes.
        celery.exceptions.Retry: the job is back in its lane.
        Cancelled: the job was cancelled meanwhile.
        LanesError: the call has failed for good, or the deadline will have passed before it may be repeated.
        Exception: what the block raised, if it is none of the SDK's.
    """
    if job.is_eager:
        refuse_eager(job.app)
    failure: Failure | None = None
    with (
        cancellable(job) as running,
        reserved(job.traced(model), job.request, is_first=not job.attempt.drawn) as leaves,
    ):
        try:
            call = admitted(job, cost, model)
            begun, limit = time.monotonic(), _time_limit(job)
            try:
                _leave(job, call, running)
                leaves()
                with unlogged():
                    yield call
                if running.cancelled and not call.ends_job:
                    # A project's client has connections that we cannot close, so its call may have come to its end.
                    cancelled(job)
            except BaseException as exc:
                failure = None if running.is_hung_up else _failure_of(job, exc, time.monotonic() - begun, limit)
                _note(call, failure)
                raise
            finally:
                call.settle()
        except TaskPredicate:
            raise  # the job is back in its lane, or ended otherwise
        except Exception:
            if running.cancelled:
                cancelled(job)
            if running.given_back:
                raise given_back(job) from None
            if failure is None:
                raise
    if failure is not None:
        end_or_return(job, failure, call)


def end_or_return(job: Job, failure: Failure, call: Call) -> NoReturn:
    """Fail a job or give it back to its lane.

    Raises:
        celery.exceptions.Retry: it is back in its lane.
        LanesError: it has failed.
    """
    try:
        _end_or_return(job, failure, call)
    except Retry as retry:
        if not failure.account:  # that is told once, for all jobs
            say_refused(job, failure.error, retry.when or 0)
        raise retry from None
    except Exception as exc:
        # The SDK's exception shows the whole body of an answer, which may repeat the prompt; so does any traceback
        # that it is chained to: in the log, in the events and in the result backend.
        raise exc from None


def _end_or_return(job: Job, failure: Failure, call: Call) -> NoReturn:
    facts = {REFUSED: call.sent_at}
    if failure.account and not call.is_own:
        job.attempt.dead_letter = (f"{REFUSES_ACCOUNT}{_reason(failure.error)}", job.tries + 1)
        if not job.is_urgent:
            raise requeued(job, failure.error, ACCOUNT_PAUSE, attempt_spent=False, facts=facts)
    if failure.kind == "fatal":
        raise failure.error
    if failure.kind == "limited":
        report(job, "limited")
        delay = failure.retry_after or LIMITED_PAUSE
        raise requeued(job, failure.error, delay, attempt_spent=call.is_own, facts=facts)
    delay = max(backoff(job.tries), failure.retry_after or 0)
    if failure.timed_out:
        _repeat_once(job, failure.error, delay)
    raise requeued(job, failure.error, delay, facts=facts if failure.overloaded else None)


def _repeat_once(job: Job, error: Exception, delay: float) -> NoReturn:
    """Repeat a call that took all of its time, once: its answer was paid for, and the next one will be."""
    if job.timeouts >= MOST_TIMEOUTS:
        dead(job, error)
    raise requeued(job, error, delay, facts={"timeouts": job.timeouts + 1})


def _leave(job: Job, call: Call, running: Running) -> None:
    if running.cancelled:
        call.failed("unsent")
        cancelled(job)
    if running.given_back:
        call.failed("unsent")
        raise given_back(job)
    if job.tries == 0 and call.answer is None:
        report(job, "called", time.time() - job.submitted_at)


def _time_limit(job: Job) -> tuple[float, str]:
    """Return the seconds that a call may take from now on, and what says so."""
    setting, left = f"LANES_{job.lane.name.upper()}_CALL_TIMEOUT", job.until_deadline()
    if left < job.lane.call_timeout:
        return left, f"what was left until the job's deadline; {setting} allows {job.lane.call_timeout:g} s"
    return job.lane.call_timeout, setting


def _bound(limit: tuple[float, str], seconds: float) -> str:
    """Say what ended a call after these seconds: a project's own client may have less patience than its lane."""
    allowed, words = limit
    return words if seconds >= allowed * _NEARLY else f"as its own client has it; {words}"


def _failure_of(job: Job, exc: BaseException, seconds: float, limit: tuple[float, str]) -> Failure | None:
    """Judge what a block raised; what a block within it has judged already passes."""
    if isinstance(exc, TaskPredicate):
        return None
    keys = settings_of(job.app).api_keys.values()
    secrets = [key.get_secret_value() for key in keys if key]
    failure = failure_of(exc, seconds, secrets, _bound(limit, seconds))
    if failure is not None and failure.account and not _is_with_our_key(job, exc):
        return replace(failure, account=False)
    return failure


def _is_with_our_key(job: Job, exc: BaseException) -> bool:
    """Whether a call was made with the key whose budget it drew on: a project's own task may use one of its own."""
    headers = getattr(getattr(exc, "request", None), "headers", {})
    said = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
    return not said or said == settings_of(job.app).api_key(job.lane)


def _reason(error: Exception) -> str:
    """Say in short why the API refused a call, for all who wait because of it."""
    return f"{error.status} {error.type}: {error.text}" if isinstance(error, ApiError) else str(error)


def _note(call: Call, failure: Failure | None) -> None:
    """Tell the budget how the call ended; what was answered stays so, whatever was raised afterwards."""
    if failure is not None:
        call.failed(failure.outcome, failure.headers, _reason(failure.error))
    elif call.outcome == "answered" and call.usage is None and call.headers is None:
        # Nothing said: a call that failed, or that we hung up on, which says nothing about the API.
        call.failed("failed")
