"""The block around an admitted call: settled however it ends, its failure judged, its job ended or given back."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from celery.exceptions import Retry, TaskPredicate

from celery_app.settings import settings_of
from tasks.admission import admitted
from tasks.cancelling import cancellable
from tasks.endings import say_refused
from tasks.failures import LIMITED_PAUSE, Failure, backoff, failure_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery_app.budget import Cost
    from tasks.admission import Call
    from tasks.base import LaneTask
    from tasks.cancelling import Running


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
            begun = time.monotonic()
            try:
                _leave(task, call, running)
                yield call
            except BaseException as exc:
                failure = None if running.cancelled else _failure_of(task, exc, time.monotonic() - begun)
                _note(call, failure)
                raise
            finally:
                call.settle()
    except Exception:
        if failure is None:
            raise
        end_or_return(task, failure)


def end_or_return(task: LaneTask, failure: Failure) -> NoReturn:
    """Fail the job or give it back to its lane.

    Raises:
        celery.exceptions.Retry: it is back in its lane.
        LanesError: it has failed.
    """
    try:
        _end_or_return(task, failure)
    except Retry as retry:
        say_refused(task, failure.error, retry.when or 0)
        raise retry from None
    except Exception as exc:
        # The SDK's exception shows the whole body of an answer, which may repeat the prompt; so does any traceback
        # that it is chained to: in the log, in the events and in the result backend.
        raise exc from None


def _end_or_return(task: LaneTask, failure: Failure) -> NoReturn:
    if failure.kind == "fatal":
        raise failure.error
    if failure.kind == "limited":
        task.report("limited")
        task.return_to_lane(failure.error, failure.retry_after or LIMITED_PAUSE, attempt_spent=False)
    task.return_to_lane(failure.error, max(backoff(task.request.retries), failure.retry_after or 0))


def _leave(task: LaneTask, call: Call, running: Running) -> None:
    if running.cancelled:
        call.failed("unsent")
        task.end_cancelled()
    if task.request.retries == 0:
        task.report("called", time.time() - task.submitted_at)


def _failure_of(task: LaneTask, exc: BaseException, seconds: float) -> Failure | None:
    """Judge what a block raised; what a block within it has judged already passes."""
    if isinstance(exc, TaskPredicate):
        return None
    keys = settings_of(task.app).api_keys.values()
    return failure_of(exc, seconds, [key.get_secret_value() for key in keys if key])


def _note(call: Call, failure: Failure | None) -> None:
    """Tell the budget how the call ended; what was answered stays so, whatever was raised afterwards."""
    if failure is not None:
        call.failed(failure.outcome, failure.headers)
    elif call.outcome == "answered" and call.usage is None and call.headers is None:
        # Nothing said: a call that failed, or that we hung up on, which says nothing about the API.
        call.failed("failed")
