"""How a job leaves its worker: done, failed, cancelled, requeued or dead. Each tells everybody who waits for it.

Celery itself stores results and acknowledges jobs; what raises here ends the task.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, NoReturn

import redis
from celery.exceptions import Ignore, MaxRetriesExceededError, Retry, TaskPredicate
from celery.states import REVOKED
from kombu.exceptions import OperationalError

from celery_app.broker import verdict
from celery_app.broker.claims import claim_of
from celery_app.broker.returns import dead_letter, requeue
from celery_app.errors import Buried, Cancelled, LanesError, OutOfBudget
from celery_app.metrics.events import JobEvent, Kind, emit
from celery_app.process.away import say_away
from celery_app.results.backend import backend_of
from celery_app.stand_in import stand_in
from tasks.cancelling import is_marked
from tasks.log_lines import say_cancelled, say_failed
from tasks.outcome import tell_done, tell_ended

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tasks.job import Job


def may_end(job: Job, *, fails: bool = False) -> bool:
    """Decide, once, that a job ends with a result or an error; return False if it was cancelled before.

    Raises:
        celery.exceptions.Ignore: it fails, and was given to somebody else meanwhile, whose failures count.
    """
    if not job.is_sent or stand_in() is not None:
        return True
    if job.attempt.may_end is None:
        claim = claim_of(job.claim) if fails and job.claim else ("", "")
        return verdict.may_end(job.app, job.id, job.batch, claim)
    return job.attempt.may_end


def once(run: Callable[..., Any], job_of: Callable[[], Job]) -> Callable[..., Any]:
    """Return a task's function that ends each job in one way: with what it returns or raises, or as cancelled.

    It is decided before callbacks are sent and the result is stored.

    Args:
        run: the function.
        job_of: returns the job in hand.
    """

    @wraps(run)
    def run_once(*args: Any, **kwargs: Any) -> Any:
        try:
            result = run(*args, **kwargs)
        except TaskPredicate:
            raise
        except Exception:
            if may_end(job_of(), fails=True):
                raise
        else:
            if may_end(job_of()):
                return result
        return cancelled(job_of())

    return run_once


def done(job: Job, value: Any) -> None:
    """Count a job whose result is stored, and tell who waits for it."""
    report(job, "processed")
    tell_done(job, value)


def failed(job: Job, error: Exception) -> None:
    """Count a job whose error is stored, and tell who waits for it."""
    if not isinstance(error, Buried):
        say_failed(job, error)  # of the others there is a line that they go to the dead letters
    report(job, "failed")
    tell_ended(job, "failed", error)


def cancelled(job: Job) -> NoReturn:
    """End a job as cancelled: for itself, for what is chained behind it, for its chord, and for who waits for it.

    Raises:
        Cancelled: always, which ends the task.
    """
    job.attempt.may_end = False  # whatever is raised from here on is no other end
    say_cancelled(job)
    error = Cancelled()
    _revoke(job, error)
    tell_ended(job, "cancelled", error)
    tell_monitors(job, "task-revoked", terminated=True, signum=None, expired=False)
    raise error


def requeued(
    job: Job,
    error: BaseException | None,
    delay: float,
    *,
    attempt_spent: bool = True,
    facts: Mapping[str, str | float] | None = None,
) -> Retry:
    """Give a job back to its place in its lane, to start again after a while; the waiting is done in the broker.

    Args:
        job: that will be tried again.
        error: what has happened.
        delay: in seconds.
        attempt_spent: whether it counts.
        facts: what else is to be known of it, see `Leases.requeue`.

    Returns:
        What has to be raised, for the task to end here.

    Raises:
        BaseException: `error`, once the attempts are used up.
        DeadlineExceeded: if the job's deadline passes before it could start again.
        Cancelled: if the job was cancelled meanwhile.
        celery.exceptions.Ignore: if somebody else has it by now.
    """
    if not job.claim:
        raise error or Retry(when=delay)
    if attempt_spent and job.tries + 1 >= job.attempts:
        dead(job, error or MaxRetriesExceededError(f"{job.task} was tried {job.tries + 1} times"))
    if delay > job.until_deadline():
        # Whoever waits for a job that will never be called again learns so now, and why.
        why = f" ({error if isinstance(error, LanesError) else type(error).__name__})" if error else ""
        raise job.overdue(f"before its next attempt in {delay:.1f} s{why}") from None
    if is_marked(job):
        cancelled(job)
    report(job, "returned")
    if not requeue(job.app, job.request.properties, delay=delay, retries=job.tries + attempt_spent, facts=facts):
        raise Ignore  # its lease was over, and somebody else has it
    return Retry(exc=error, when=delay)


def given_back(job: Job) -> Retry:
    """Give a job back to its place because its worker stops, with the attempts that it had; the rest as `requeued`.

    One that has no place in a lane fails: nobody would publish it again, and its caller would wait for ever.
    """
    error = None if job.claim else OutOfBudget(wait=0.0, dimension="its worker stops")
    return requeued(job, error, 0.0, attempt_spent=False)


def dead(job: Job, error: BaseException) -> NoReturn:
    """Fail a job with `error`, and have it kept among the dead letters, once whoever waits has been told.

    Raises:
        BaseException: `error`, always.
    """
    if job.claim:
        # Only our own errors are known to show nothing of the prompt.
        words = f": {error}" if isinstance(error, LanesError) else ""
        reason = f"{type(error).__name__} after {job.tries + 1} attempts{words}"
        job.attempt.dead_letter = (reason, job.tries + 1)
    raise error


def keep_dead_letter(job: Job) -> None:
    """Keep a job that is to be kept; it has failed, and whoever waits has been told: it may be replayed."""
    kept, job.attempt.dead_letter = job.attempt.dead_letter, None
    if kept and job.claim:
        dead_letter(job.app, job.request.properties, *kept)


#: How the reason of a dead letter begins that the account is to blame for; as in scheduler/scripts/lib/overdue.lua.
REFUSES_ACCOUNT = "the API refuses the account: "


def report(job: Job, kind: Kind, seconds: float = 0.0) -> None:
    """Tell the observers what happened to a job."""
    emit(JobEvent(kind=kind, lane=job.lane.name, task=job.task, seconds=seconds))


def tell_monitors(job: Job, event: str, **fields: Any) -> None:
    """Send one of Celery's events about a job, as its worker would; a broker that is away ends no job otherwise."""
    policy = job.app.conf.task_publish_retry_policy
    try:
        with job.app.events.default_dispatcher(hostname=job.request.hostname) as dispatcher:
            dispatcher.send(event, uuid=job.id, retry=True, retry_policy=policy, **fields)
    except (redis.RedisError, OperationalError, OSError) as exc:
        say_away("an event could not be sent to monitors", exc)


def keep_cancelled(job: Job) -> None:
    """Have the state RETRY not outlast a cancellation that came while it was stored."""
    if not job.is_eager and stand_in() is None and is_marked(job):
        _backend_of(job).store_result(job.id, Cancelled(), REVOKED, request=job.request)


def _backend_of(job: Job) -> Any:
    """Return where a job's result goes: its task may have a backend of its own."""
    task = job.app.tasks.get(job.task)
    return task.backend if getattr(task, "in_lanes", False) else backend_of(job.app)


def _revoke(job: Job, error: Cancelled) -> None:
    backend, request = _backend_of(job), job.request
    backend.store_result(job.id, error, REVOKED, request=request)
    if request.chord:
        backend.on_chord_part_return(request, REVOKED, error)
    if request.chain:
        # Celery's own way to end them (5.7; pyproject.toml pins the minor release).
        backend._fail_chain(request.chain, error, state=REVOKED)  # noqa: SLF001
