"""What any task in a lane can do."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from celery_app.broker.packet import cost_header
from celery_app.jobs.descriptions import description_of
from celery_app.jobs.limits import refuse_limits
from celery_app.routing import COST, MODEL
from celery_app.settings import settings_of
from celery_app.stand_in import stand_in
from tasks.defaults import LaneDefaults
from tasks.job import Job
from tasks.keeping import keeping
from tasks.submission import submission

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from celery.exceptions import Retry
    from celery.result import AsyncResult

    from celery_app.budget import Cost
    from celery_app.lanes import Lane
    from tasks.call import Call


class LaneTask(LaneDefaults):
    """Base of a task whose jobs run in lanes: ``@shared_task(base=LaneTask, bind=True)``."""

    abstract = True
    #: True: logs, events, Flower and stored results show arguments as Celery does. They are described otherwise,
    #: whatever ``argsrepr`` and ``kwargsrepr`` a caller gives: an argument may be a prompt.
    shows_arguments = False

    def __init_subclass__(cls, **options: Any) -> None:
        """Have a project's own `on_failure` keep the job that is to be kept, whether it calls ours or not."""
        super().__init_subclass__(**options)
        kind: Any = cls
        if "on_failure" in vars(cls):
            kind.on_failure = keeping(kind.on_failure)

    def describe(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """Return the one line that logs, events and Flower show of a job's arguments; override it to say more.

        By default the names, types and sizes: ``text=<str, 8,000 characters>``. It has to be quick, must not raise,
        and is asked wherever the job is seen; 1,000 characters of it are kept at most.
        """
        return description_of(self, args, kwargs)

    def cost_of(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Cost | None:
        """Return what a job will cost, to be reserved before it starts, where the class declares its ``model``, too."""
        return None

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> AsyncResult:
        """Submit a job; besides Celery's options there are four of the lanes.

        ``wait``: seconds to wait for room in a full lane. ``tenant``: whose job it is; tenants take turns.
        ``unique``: while a job of this task, tenant and name is queued or runs, and for ``unique_for`` seconds after
        its end, its result comes back and nothing is queued.

        Raises:
            InvalidRequest: naming the one of these that is wrong.
            UnsupportedTask: it has a ``rate_limit``, or this call a time limit.
            UnknownLane, LaneFull, BrokerUnreachable: within ``wait``, or 3 s.
        """
        refuse_limits(self, options)
        standing_in = stand_in()
        with submission(self.app, options, self._stated(args or (), kwargs or {})) as found:
            if standing_in is not None:
                return standing_in.send(self, args, kwargs, options)
            result = super().apply_async(args, kwargs, **options)
        return self.AsyncResult(found[0]) if found else result

    def _stated(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the headers that say what a job will call, as far as its task declares that."""
        model: Any = type(self).model
        cost = self.cost_of(args, kwargs) if isinstance(model, str) else None
        if cost is None:
            return {}
        from celery_app.budget.prices import priced

        return {MODEL: model, COST: cost_header(priced(settings_of(self.app), model, cost))}

    def apply(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Run a job in this process, on the budget; where `celery_app.testing` stands in, with its answer."""
        standing_in = stand_in()
        if standing_in is not None:
            return standing_in.apply(self, args, kwargs, options)
        return super().apply(args, kwargs, **options)

    @property
    def job(self) -> Job:
        """The job in hand."""
        return Job.in_hand(self.app, self.name, self.request, self.max_retries)

    @property
    def lane(self) -> Lane:
        """The lane of the job in hand; `normal` for a job that came from another queue."""
        return self.job.lane

    @property
    def model(self) -> str:
        """The model that the job said it would call; empty where it did not say."""
        return self.job.model

    def seconds_left(self) -> float:
        """Return the seconds that one call may take, see `Job.seconds_left`; `DeadlineExceeded` if there are none."""
        return self.job.seconds_left()

    def admit(
        self, *, input_tokens: int = 0, output_tokens: int | None = None, model: str = ""
    ) -> AbstractContextManager[Call]:
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
        from tasks.admitted_block import admitted_block  # brings redis-py along

        cost = Cost(input_tokens=input_tokens, output_tokens=output_tokens)
        return admitted_block(self.job, cost, model or self.model)

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """End a job that was cancelled, or whose deadline passed, in the queue before it costs anything."""
        from tasks.start import check  # brings redis-py along

        check(self.job)
        super().before_start(task_id, args, kwargs)

    def end_once(self) -> None:
        """Have each job of this process end in one way, with its result or cancelled; a worker calls it at its start.

        It is decided before callbacks are sent and the result is stored. From then on `cancel` returns False.
        """
        from tasks.endings import once  # brings redis-py along

        if "lanes_ends_once" not in vars(self):
            task: Any = self
            task.run, task.lanes_ends_once = once(task.run, lambda: self.job), True

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Count the job, and tell who waits for it."""
        from tasks.endings import done  # brings redis-py along

        done(self.job, retval)
        super().on_success(retval, task_id, args, kwargs)

    def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Count the job, and tell who waits for it."""
        from tasks.endings import failed, keep_dead_letter  # brings redis-py along

        failed(self.job, exc)
        super().on_failure(exc, task_id, args, kwargs, einfo)
        keep_dead_letter(self.job)

    def on_retry(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Have the state RETRY not outlast a cancellation that came while it was stored."""
        from tasks.endings import keep_cancelled  # brings redis-py along

        keep_cancelled(self.job)
        super().on_retry(exc, task_id, args, kwargs, einfo)

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
        job = self.job
        if stand_in() is not None and max_retries is None:
            max_retries = job.attempts - 1  # Celery sends a copy, and would without end
        if not job.claim or args or kwargs or options:
            return super().retry(args, kwargs, exc, throw, eta, countdown, max_retries, **options)
        from tasks.endings import requeued  # brings redis-py along

        delay = self.default_retry_delay if countdown is None else countdown
        if eta is not None:
            delay = (eta - datetime.now(eta.tzinfo)).total_seconds()
        if max_retries is not None:
            job = replace(job, attempts=max_retries + 1)
        retry = requeued(job, exc, delay)
        if throw:
            raise retry
        return retry
