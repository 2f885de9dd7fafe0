"""What any task in a lane can do."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from datetime import datetime
from functools import wraps
from typing import TYPE_CHECKING, Any, NoReturn

from celery import Task
from celery.exceptions import MaxRetriesExceededError, Retry, TaskPredicate
from celery.states import REVOKED

from celery_app.broker.claims import DECIDED, is_claimed, queue_of
from celery_app.descriptions import description_of, store_descriptions
from celery_app.errors import Buried, Cancelled, DeadlineExceeded, LanesError
from celery_app.identity import identity
from celery_app.job_keys import BATCH_HEADER
from celery_app.lanes import NORMAL, Lane
from celery_app.messaging import SERIALIZER
from celery_app.metrics.events import JobEvent, Kind, emit
from celery_app.publishing import noting_found
from celery_app.queues import refuse
from celery_app.results import backend_of, unsubscribed
from celery_app.room import waiting_for_room
from celery_app.routing import DEADLINE_AT, MODEL, SUBMITTED_AT
from celery_app.settings import settings_of
from celery_app.stand_in import refuse_eager, stand_in
from celery_app.task_limits import LIMITS, annotated, refuse_limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from celery.result import AsyncResult

    from celery_app.budget import Cost
    from tasks.admission import Call


class LaneTask(Task):
    """Base of a task whose jobs run in lanes: ``@shared_task(base=LaneTask, bind=True)``."""

    abstract = True
    #: Tells the router that a job sent to no particular queue belongs in a lane.
    in_lanes = True
    # Whatever the project's settings say for its own tasks:
    #: A job belongs to the broker until it is done, ...
    acks_late = True
    #: ... and a pool's process that was killed has not done its job.
    reject_on_worker_lost = True
    #: A failure is an end: the lane's attempts are used up by then.
    acks_on_failure_or_timeout = acks_on_failure = acks_on_timeout = True
    #: These tasks are called for their results.
    ignore_result = False
    #: A pickle from the broker would be code from the broker.
    serializer = SERIALIZER
    #: The lane's ``attempts`` decides.
    max_retries = None
    #: A project's defaults for these are meant for tasks that nothing else limits: in a lane they would park jobs in
    #: slots, or say what a thread cannot keep.
    from_config = tuple(pair for pair in Task.from_config if pair[0] not in LIMITS)
    #: What the API or the lane foresaw is no reason for a traceback in the worker's log; a task's own join them.
    throws: tuple[type[Exception], ...] = (LanesError,)
    #: True: logs, events, Flower and stored results show arguments as Celery does. They are described otherwise,
    #: whatever ``argsrepr`` and ``kwargsrepr`` a caller gives: an argument may be a prompt.
    shows_arguments = False
    #: Characters of a result in the worker's log and in Flower: none, an answer is as private as its prompt.
    resultrepr_maxsize = 0
    #: Describes the arguments of a job that comes from a producer without this code.
    Request = "celery_app.broker.request:LaneRequest"

    def __init_subclass__(cls, **options: Any) -> None:
        """Have a project's own `on_failure` keep the job that is to be kept, whether it calls ours or not."""
        super().__init_subclass__(**options)
        kind: Any = cls
        if "on_failure" in vars(cls):
            kind.on_failure = _keeping(kind.on_failure)

    @classmethod
    def on_bound(cls, app: Any) -> None:
        """Keep our own errors among those that a task foresees when it names others."""
        super().on_bound(app)
        own = cls.throws if isinstance(cls.throws, tuple) else (cls.throws,)
        cls.throws = own if LanesError in own else (*own, LanesError)

    @property
    def backend(self) -> Any:
        """The project's own result backend, or the lanes' where it has none; a task may be given another.

        Beside a result it keeps a description of the arguments (``result_extended``).
        """
        backend = backend_of(self.app) if self._backend is None else self._backend
        patient = getattr(self.app, "lanes_patience", None)  # where jobs run
        return store_descriptions(backend if patient is None else patient(backend))

    @backend.setter
    def backend(self, value: Any) -> None:
        self._backend = value

    def describe(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """Return the one line that logs, events and Flower show of a job's arguments; override it to say more.

        By default the names, types and sizes: ``text=<str, 8,000 characters>``. It has to be quick, must not raise,
        and is asked wherever the job is seen; 1,000 characters of it are kept at most.
        """
        return description_of(self, args, kwargs)

    @classmethod
    def annotate(cls) -> None:
        """Take what ``task_annotations`` says of this task by name; its limits for all tasks end before the lanes."""
        own = {name: getattr(cls, name) for name in LIMITS}
        super().annotate()
        for name, value in own.items():
            setattr(cls, name, annotated(cls, name, value))

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> AsyncResult:
        """Submit a job; besides Celery's options there are four of the lanes.

        ``wait``: seconds to wait for room in a full lane. ``tenant``: whose job it is; tenants take turns.
        ``unique``: while a job of this task with this name is queued or runs, and for ``unique_for`` seconds after its
        end, its result comes back and nothing is queued.

        Raises:
            InvalidRequest: naming the one of these that is wrong.
            UnknownLane: there is no such queue.
            UnsupportedTask: it has a ``rate_limit``, or this call a time limit.
            LaneFull: the lane had no room for `wait`, by default its ``submit_wait``.
            BrokerUnreachable: within 3 s.
        """
        from celery_app.connection import broker_errors

        settings = settings_of(self.app)
        refuse_limits(self, options)
        standing_in = stand_in()
        if standing_in is not None:
            standing_in.adopt(self.app)
        elif not self.app.conf.task_always_eager:
            settings.check_broker()
        queue = options.get("queue")
        if isinstance(queue, str):
            self._check_queue(queue)
        names = identity(*(options.pop(name, None) for name in ("tenant", "unique", "unique_for")))
        options["headers"] = {**(options.get("headers") or {}), **names}
        waiting = waiting_for_room(options.pop("wait", None))
        with waiting, broker_errors(self.app), unsubscribed(self.app), noting_found() as found:
            if standing_in is not None:
                return standing_in.send(self, args, kwargs, options)
            result = super().apply_async(args, kwargs, **options)
        return self.AsyncResult(found[0]) if found else result

    def apply(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Run a job in this process, on the budget; where `celery_app.testing` stands in, with its answer."""
        standing_in = stand_in()
        if standing_in is not None:
            return standing_in.apply(self, args, kwargs, options)
        return super().apply(args, kwargs, **options)

    def _check_queue(self, name: str) -> None:
        try:
            _ = self.app.amqp.queues[name]
        except KeyError:
            refuse(name)

    @property
    def lane(self) -> Lane:
        """The lane of the job in hand; `normal` for a job that came from another queue."""
        name = queue_of(self.request.properties, self.request.delivery_info)
        return settings_of(self.app).lane(name) or settings_of(self.app).lane(NORMAL.name) or NORMAL

    @property
    def submitted_at(self) -> float:
        """Seconds since the epoch at which the job was submitted; now, where a stock producer did not say."""
        return _seconds(self.request.get(SUBMITTED_AT)) or time.time()

    @property
    def deadline_at(self) -> float | None:
        """Seconds since the epoch after which the job is pointless, or None."""
        return _seconds(self.request.get(DEADLINE_AT))

    @property
    def model(self) -> str:
        """The model that the job said it would call; empty where it did not say."""
        return str(self.request.get(MODEL) or "")

    def seconds_left(self) -> float:
        """Return the seconds that one call may take: what is left of the deadline, at most the lane's ``call_timeout``.

        Raises:
            DeadlineExceeded: if nothing is left.
        """
        if self.deadline_at is None:
            return self.lane.call_timeout
        left = self.deadline_at - time.time()
        if left <= 0:
            raise DeadlineExceeded(where="in the queue", allowed=self.deadline_at - self.submitted_at)
        return min(left, self.lane.call_timeout)

    @contextmanager
    def admit(self, *, input_tokens: int = 0, output_tokens: int | None = None, model: str = "") -> Iterator[Call]:
        """Draw one call on the shared budget: ``with self.admit(input_tokens=900) as call: …``.

        Around one SDK call of the project's own, with ``max_retries=0``. Tell the block's `Call` what came of it:
        ``call.answered(message)``. What the SDK raises ends the block as it would end a ``create_message``: the job
        goes back to its lane, or fails with an error that shows neither prompt nor key. Any other exception passes.

        Args:
            input_tokens: of the prompt, as far as is known.
            output_tokens: of the answer; None: as many as the model lately produced.
            model: whose budget; by default the job's own.

        Raises:
            celery.exceptions.Retry: if the budget has no room, or the call failed in a way that passes; the job is back
                at the front of its lane then.
            DeadlineExceeded: if neither will be over before the job's deadline.
            LanesError: `ApiError` and its like, if no repetition helps, or the lane's attempts are used up.
            Cancelled: if the job was cancelled meanwhile.
        """
        from celery_app.budget import Cost
        from tasks.cancelling import end_if_cancelled

        cost = Cost(input_tokens=input_tokens, output_tokens=output_tokens)
        with self.admit_cost(cost, model or self.model) as call:
            yield call
            # A project's client has connections that we cannot close, so its call may have come to its end.
            end_if_cancelled(self)

    def admit_cost(self, cost: Cost, model: str) -> AbstractContextManager[Call]:
        """Do as `admit` does, for a cost that was measured otherwise."""
        from tasks.admitted_block import admitted_block  # brings redis-py along

        if self.request.is_eager:
            refuse_eager(self.app)
        return admitted_block(self, cost, model)

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """End a job that was cancelled, or whose deadline passed, in the queue before it costs anything."""
        if not (self.request.called_directly or self.request.is_eager):
            from tasks.cancelling import is_cancelled  # brings redis-py along

            if is_cancelled(self):
                self.end_cancelled()
        if not self.request.called_directly:
            self._check_deadline()
        super().before_start(task_id, args, kwargs)

    def _check_deadline(self) -> None:
        """End a job whose deadline passed in the queue, and say if the API had shut its budget meanwhile."""
        try:
            self.seconds_left()
        except DeadlineExceeded as exc:
            if not self._may_end():
                self.end_cancelled()
            if not is_claimed(self.request.properties):
                raise
            from tasks.admission import shut_for  # brings redis-py along

            why = shut_for(self.app, self.lane.name)
            where = f"in the queue, where it waited for {why}" if why else "in the queue"
            raise DeadlineExceeded(where=where, allowed=exc.allowed) from None

    def end_cancelled(self) -> NoReturn:
        """End the job as cancelled.

        Raises:
            Cancelled: always, which ends the task.
        """
        from tasks.endings import say_cancelled
        from tasks.outcome import tell_outcome

        say_cancelled(self)
        cancelled = Cancelled()
        self._revoke(cancelled)
        tell_outcome(self, "cancelled")
        self.on_end(cancelled)
        self.send_event("task-revoked", terminated=True, signum=None, expired=False)
        raise cancelled

    def _revoke(self, cancelled: Cancelled) -> None:
        """Store that the job was cancelled, for it, for what is chained behind it, and for its chord."""
        backend, request = self.backend, self.request
        backend.store_result(request.id, cancelled, REVOKED, request=request)
        if request.chord:
            backend.on_chord_part_return(request, REVOKED, cancelled)
        if request.chain:
            # Celery's own way to end them (5.7; pyproject.toml pins the minor release).
            backend._fail_chain(request.chain, cancelled, state=REVOKED)  # noqa: SLF001

    def end_once(self) -> None:
        """Have each job of this process end in one way, with its result or cancelled; a worker calls it at its start.

        It is decided before callbacks are sent and the result is stored. From then on `cancel` returns False.
        """
        if "lanes_ends_once" in vars(self):
            return
        task: Any = self
        run = task.run

        @wraps(run)
        def run_once(*args: Any, **kwargs: Any) -> Any:
            try:
                result = run(*args, **kwargs)
            except TaskPredicate:
                raise
            except Exception:
                if self._may_end():
                    raise
            else:
                if self._may_end():
                    return result
            return self.end_cancelled()

        task.run, task.lanes_ends_once = run_once, True

    def _may_end(self) -> bool:
        from celery_app.broker.verdict import may_end  # brings redis-py along

        if self.request.called_directly or self.request.is_eager or stand_in() is not None:
            return True
        decided: bool | None = self.request.get(DECIDED)
        if decided is not None:
            return decided
        return may_end(self.app, self.request.id, self.request.get(BATCH_HEADER))

    def on_end(self, error: Exception) -> None:
        """Do what a kind of task has to do when one of its jobs ends without a result."""

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Count the job, and tell who waits for it."""
        from tasks.outcome import tell_outcome

        self.report("processed")
        tell_outcome(self, "done", retval)
        super().on_success(retval, task_id, args, kwargs)

    def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Count the job, and tell who waits for it."""
        from tasks.endings import keep_dead_letter, say_failed
        from tasks.outcome import tell_outcome

        if not isinstance(exc, Buried):
            say_failed(self, exc)  # of the others there is a line that they go to the dead letters
        self.report("failed")
        tell_outcome(self, "failed")
        self.on_end(exc)
        super().on_failure(exc, task_id, args, kwargs, einfo)
        keep_dead_letter(self)

    def on_retry(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Have the state RETRY not outlast a cancellation that came while it was stored."""
        from tasks.cancelling import is_marked

        if not (self.request.is_eager or stand_in() is not None) and is_marked(self):
            self.backend.store_result(task_id, Cancelled(), REVOKED, request=self.request)
        super().on_retry(exc, task_id, args, kwargs, einfo)

    def report(self, kind: Kind, seconds: float = 0.0) -> None:
        """Tell the observers what happened to the job in hand."""
        emit(JobEvent(kind=kind, lane=self.lane.name, task=self.name, seconds=seconds))

    def retry(
        self,
        args: Any = None,
        kwargs: Any = None,
        exc: BaseException | None = None,
        throw: bool = True,
        eta: datetime | None = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> Retry:
        """Give the job back to the front of its lane, at its original priority; the waiting is done in the broker.

        Celery's own retry sends a copy to the back of the line. It is used where a copy is wanted: with other
        arguments or options, and outside of a worker.

        Raises:
            celery.exceptions.Retry: unless `throw` is false.
            celery.exceptions.MaxRetriesExceededError: or `exc`, once the attempts are used up; the job is kept among
                the dead letters then. They are the lane's unless the task or the call sets ``max_retries``.
            DeadlineExceeded: if the job's deadline passes before it could start again.
        """
        properties = self.request.properties
        if stand_in() is not None:
            # Celery sends a copy, and would without end.
            max_retries = self._most_retries(max_retries)
        if self.request.called_directly or not is_claimed(properties) or args or kwargs or options:
            return super().retry(args, kwargs, exc, throw, eta, countdown, max_retries, **options)
        self._check_attempts(exc, max_retries)
        delay = self.default_retry_delay if countdown is None else countdown
        if eta is not None:
            delay = (eta - datetime.now(eta.tzinfo)).total_seconds()
        retry = self._returned(delay, self.request.retries + 1, exc)
        if throw:
            raise retry
        return retry

    def _most_retries(self, max_retries: int | None) -> int:
        most = self.max_retries if max_retries is None else max_retries
        return self.lane.attempts - 1 if most is None else most

    def return_to_lane(
        self,
        error: BaseException,
        delay: float,
        *,
        attempt_spent: bool = True,
        facts: Mapping[str, str | float] | None = None,
    ) -> NoReturn:
        """Give the job back to the front of its lane, to start again after `delay` seconds.

        Args:
            error: what has happened.
            delay: in seconds.
            attempt_spent: whether it counts.
            facts: what else is to be known of it, see `Leases.requeue`.

        Raises:
            celery.exceptions.Retry: which ends the task here.
            BaseException: `error`, once the attempts are used up.
            DeadlineExceeded: if the job's deadline passes before it could start again.
        """
        if self.request.called_directly or not is_claimed(self.request.properties):
            raise error
        if attempt_spent:
            self._check_attempts(error)
        raise self._returned(delay, self.request.retries + attempt_spent, error, facts)

    def _check_attempts(self, error: BaseException | None, max_retries: int | None = None) -> None:
        if self.request.retries >= self._most_retries(max_retries):
            self.give_up(error or MaxRetriesExceededError(f"{self.name} was tried {self.request.retries + 1} times"))

    def _returned(
        self, delay: float, retries: int, error: BaseException | None, facts: Mapping[str, str | float] | None = None
    ) -> Retry:
        from celery_app.broker.returns import requeue  # brings redis-py along
        from tasks.cancelling import is_marked

        self._check_time_for(delay, error)
        if is_marked(self):
            self.end_cancelled()
        self.report("returned")
        requeue(self.app, self.request.properties, delay=delay, retries=retries, facts=facts)
        return Retry(exc=error, when=delay)

    def _check_time_for(self, delay: float, error: BaseException | None) -> None:
        """Whoever waits for a job that will never be called again learns so now, and why."""
        if self.deadline_at is not None and time.time() + delay > self.deadline_at:
            reason = str(error) if isinstance(error, LanesError) else type(error).__name__
            where = f"before its next attempt in {delay:.1f} s{f' ({reason})' if error else ''}"
            raise DeadlineExceeded(where=where, allowed=self.deadline_at - self.submitted_at) from None

    def give_up(self, error: BaseException) -> NoReturn:
        """Fail the job with `error` and keep it among the dead letters.

        Raises:
            BaseException: `error`, always.
        """
        from tasks.endings import keep_if_failed

        attempts = self.request.retries + 1
        tried = f"{type(error).__name__} after {attempts} attempts"
        # Only our own errors are known to show nothing of the prompt.
        keep_if_failed(self, f"{tried}: {error}" if isinstance(error, LanesError) else tried, attempts)
        raise error


def _keeping(on_failure: Callable[..., None]) -> Callable[..., None]:
    @wraps(on_failure)
    def fail(task: LaneTask, *args: Any, **kwargs: Any) -> None:
        from tasks.endings import keep_dead_letter

        try:
            on_failure(task, *args, **kwargs)
        finally:
            keep_dead_letter(task)

    return fail


def _seconds(header: Any) -> float | None:
    """A stock producer may have written anything; what is no time counts as not said."""
    return float(header) if isinstance(header, int | float) and math.isfinite(header) else None
