"""The block around an admitted call: settled however it ends, its failure judged, its job ended or given back."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from celery.exceptions import Retry, TaskPredicate

from celery_app.broker.claims import TIMEOUTS, is_claimed
from celery_app.errors import ApiError
from celery_app.settings import settings_of
from tasks.admission import admitted, is_urgent
from tasks.cancelling import cancellable
from tasks.endings import REFUSES_ACCOUNT, keep_if_failed, say_refused
from tasks.failures import LIMITED_PAUSE, Failure, backoff, failure_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery_app.budget import Cost
    from tasks.admission import Call
    from tasks.base import LaneTask
    from tasks.cancelling import Running

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
def admitted_block(task: LaneTask, cost: Cost, model: str) -> Iterator[Call]:
    """Admit a call to the budget, and do with its job what its failure means.

    Raises:
        celery.exceptions.Retry: the job is back in its lane.
        LanesError: the call has failed for good, or the deadline will have passed before it may be repeated.
        Exception: what the block raised, if it is none of the SDK's.
    """
    failure: Failure | None = None
    try:
        with cancellable(task) as running:
            call = admitted(task, cost, model)
            begun, limit = time.monotonic(), _time_limit(task)
            try:
                _leave(task, call, running)
                yield call
            except BaseException as exc:
                failure = None if running.cancelled else _failure_of(task, exc, time.monotonic() - begun, limit)
                _note(call, failure)
                raise
            finally:
                call.settle()
    except Exception:
        if failure is None:
            raise
        end_or_return(task, failure, call)


def end_or_return(task: LaneTask, failure: Failure, call: Call) -> NoReturn:
    """Fail the job or give it back to its lane.

    Raises:
        celery.exceptions.Retry: it is back in its lane.
        LanesError: it has failed.
    """
    try:
        _end_or_return(task, failure, call)
    except Retry as retry:
        if not failure.account:  # that is told once, for all jobs
            say_refused(task, failure.error, retry.when or 0)
        raise retry from None
    except Exception as exc:
        # The SDK's exception shows the whole body of an answer, which may repeat the prompt; so does any traceback
        # that it is chained to: in the log, in the events and in the result backend.
        raise exc from None


def _end_or_return(task: LaneTask, failure: Failure, call: Call) -> NoReturn:
    facts = {REFUSED: call.sent_at}
    if failure.account and not call.is_own:
        keep_if_failed(task, f"{REFUSES_ACCOUNT}{_reason(failure.error)}", task.request.retries + 1)
        if not is_urgent(task):
            task.return_to_lane(failure.error, ACCOUNT_PAUSE, attempt_spent=False, facts=facts)
    if failure.kind == "fatal":
        raise failure.error
    if failure.kind == "limited":
        task.report("limited")
        delay = failure.retry_after or LIMITED_PAUSE
        task.return_to_lane(failure.error, delay, attempt_spent=call.is_own, facts=facts)
    delay = max(backoff(task.request.retries), failure.retry_after or 0)
    if failure.timed_out:
        _repeat_once(task, failure.error, delay)
    task.return_to_lane(failure.error, delay, facts=facts if failure.overloaded else None)


def _repeat_once(task: LaneTask, error: Exception, delay: float) -> NoReturn:
    """Repeat a call that took all of its time, once: its answer was paid for, and the next one will be."""
    timeouts = (task.request.get(TIMEOUTS) or 0) + 1
    if timeouts > MOST_TIMEOUTS and is_claimed(task.request.properties):
        task.give_up(error)
    task.return_to_lane(error, delay, facts={"timeouts": timeouts})


def _leave(task: LaneTask, call: Call, running: Running) -> None:
    if running.cancelled:
        call.failed("unsent")
        task.end_cancelled()
    if task.request.retries == 0:
        task.report("called", time.time() - task.submitted_at)


def _time_limit(task: LaneTask) -> tuple[float, str]:
    """Return the seconds that a call may take from now on, and what says so."""
    setting = f"LANES_{task.lane.name.upper()}_CALL_TIMEOUT"
    left = math.inf if task.deadline_at is None else task.deadline_at - time.time()
    if left < task.lane.call_timeout:
        return left, f"what was left until the job's deadline; {setting} allows {task.lane.call_timeout:g} s"
    return task.lane.call_timeout, setting


def _bound(limit: tuple[float, str], seconds: float) -> str:
    """Say what ended a call after these seconds: a project's own client may have less patience than its lane."""
    allowed, words = limit
    return words if seconds >= allowed * _NEARLY else f"as its own client has it; {words}"


def _failure_of(task: LaneTask, exc: BaseException, seconds: float, limit: tuple[float, str]) -> Failure | None:
    """Judge what a block raised; what a block within it has judged already passes."""
    if isinstance(exc, TaskPredicate):
        return None
    keys = settings_of(task.app).api_keys.values()
    secrets = [key.get_secret_value() for key in keys if key]
    failure = failure_of(exc, seconds, secrets, _bound(limit, seconds))
    if failure is not None and failure.account and not _is_with_our_key(task, exc):
        return replace(failure, account=False)
    return failure


def _is_with_our_key(task: LaneTask, exc: BaseException) -> bool:
    """Whether a call was made with the key whose budget it drew on: a project's own task may use one of its own."""
    headers = getattr(getattr(exc, "request", None), "headers", {})
    said = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
    return not said or said == settings_of(task.app).api_key(task.lane)


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
