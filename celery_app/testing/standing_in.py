"""What stands in for broker, workers, result backend and API: a job runs in the thread that submits it."""

from __future__ import annotations

import threading
import warnings
from typing import TYPE_CHECKING, Any

from celery.app.trace import build_tracer
from celery.exceptions import AlwaysEagerIgnored, NotRegistered
from celery.result import EagerResult
from celery.states import PROPAGATE_STATES, REVOKED
from kombu.serialization import dumps, loads

from celery_app.broker.claims import CANCELLED
from celery_app.connections.redis_client import shown_url
from celery_app.errors import BrokerUnreachable, Cancelled, LaneFull
from celery_app.jobs.headers import BATCH_HEADER
from celery_app.settings import settings_of
from celery_app.testing.answers import Answers, events_of
from celery_app.testing.batches import Batches
from celery_app.testing.here import Here
from celery_app.testing.job import Job
from celery_app.testing.producer import NoProducer
from celery_app.testing.results import Results, Store
from celery_app.testing.streams import Streams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from celery_app.client.batch import Batch
    from celery_app.lanes import Lane


class StandingIn:
    """See `celery_app.stand_in.StandIn`; `Lanes` is what a test sees of it.

    Attributes:
        answers: of the API.
        jobs: in the order in which they were submitted.
        held: whether jobs wait until they are drained.
        full: the lanes that have no room.
        cut: whether no broker answers.
    """

    def __init__(self) -> None:
        self.answers = Answers()
        self.jobs: list[Job] = []
        self.held, self.cut = False, False
        self.full: set[str] = set()
        self._waiting: list[Job] = []
        self._lock = threading.RLock()
        self._store = Store()
        #: Application -> its backend here, and the one that it had.
        self._adopted: dict[Any, tuple[Results, Any]] = {}
        self._streams, self._batches = Streams(), Batches()
        self._here = Here()

    def adopt(self, app: Any) -> None:
        """Have an application's results in memory."""
        with self._lock:
            if app not in self._adopted:
                backend = Results(app, self._store)
                self._adopted[app] = backend, app._backend_cache
                app._backend_cache = backend

    def backend_of(self, app: Any) -> Results:
        """Return an application's result backend."""
        self.adopt(app)
        return self._adopted[app][0]

    def release(self) -> None:
        """Give the applications back what they had."""
        with self._lock:
            for app, (_, before) in self._adopted.items():
                app._backend_cache = before
            self._adopted.clear()

    def send(self, task: Any, args: Any, kwargs: Any, options: dict[str, Any]) -> Any:
        """Submit a job as ``Task.apply_async`` does, whatever ``task_always_eager`` says."""
        if task.typing:
            task.__header__(*(args or ()), **(kwargs or {}))
        if task._dump_pydantic_arguments is not None:
            args, kwargs = task._dump_pydantic_arguments(args, kwargs)
        options = {**task._get_exec_options(), **options}
        options.setdefault("ignore_result", task.ignore_result)
        options.setdefault("result_cls", task.AsyncResult)
        if task.app.conf.task_always_eager:
            # That it has no effect here is what is wanted. Not in a block of its own: that would race with others.
            warnings.simplefilter("ignore", AlwaysEagerIgnored)
        return task.app.send_task(task.name, args, kwargs, task_type=task, **{**options, "producer": NoProducer()})

    def apply(self, task: Any, args: Any, kwargs: Any, options: dict[str, Any]) -> Any:
        """Run a job at once, held or not: so does Celery's eager canvas, which waits for it."""
        throw = options.pop("throw", False)
        options = {name: value for name, value in options.items() if name not in {"logfile", "loglevel"}}
        with self._here.at_once():
            task_id = self.send(task, args, kwargs, options).id
        result = task.AsyncResult(task_id)
        state, value = result.state, result.result
        if throw and state in PROPAGATE_STATES:
            raise value
        return EagerResult(task_id, value, state, traceback=result.traceback, name=task.name)

    def take(self, app: Any, lane: Lane, message: Any, options: Mapping[str, Any]) -> None:
        """Take a job, and run it unless it is to be held.

        Raises:
            BrokerUnreachable: the test wants it so.
            LaneFull: likewise, or as many are held as the lane has room for.
            kombu.exceptions.EncodeError: its arguments are no JSON.
        """
        self.adopt(app)
        self._check_room(app, lane)
        job = self._job(app, lane, message, options)
        if job.id == self._here.running:
            self._here.next = job  # its next attempt, or what has replaced it: once this one is over
        elif self.held and not self._here.wanted_at_once:
            with self._lock:
                self._waiting.append(job)
        else:
            self._run(job)

    def submit_many(
        self, app: Any, items: Iterable[Any], lane: Lane, on_invalid: str, progress: Callable[[Batch], None] | None
    ) -> Batch:
        """Take the jobs of a batch."""
        return self._batches.submit(app, items, lane, on_invalid, progress)

    def _check_room(self, app: Any, lane: Lane) -> None:
        if self.cut:
            raise BrokerUnreachable(url=shown_url(app), reason="a test has cut it off")
        with self._lock:
            held = sum(job.lane == lane.name for job in self._waiting)
        if lane.name in self.full or held >= lane.capacity:
            depth = max(held, lane.capacity)
            raise LaneFull(lane=lane.name, depth=depth, capacity=lane.capacity, waited=lane.submit_wait)

    def _job(self, app: Any, lane: Lane, message: Any, options: Mapping[str, Any]) -> Job:
        headers = {**message.headers, **(options.get("headers") or {})}
        content_type, encoding, text = dumps(message.body, "json")
        args, kwargs, embed = loads(text, content_type, encoding)
        delivery = {"exchange": "", "routing_key": lane.name, "priority": options.get("priority"), "redelivered": False}
        request = {
            **headers,
            **embed,
            "correlation_id": message.properties.get("correlation_id"),
            "delivery_info": delivery,
            "hostname": "in-process",
            "properties": {CANCELLED: False},
        }
        job = Job(headers["id"], lane.name, headers["task"], args, kwargs, headers, app=app, of=lane, request=request)
        with self._lock:
            if headers.get("retries"):
                job = self._again(job)
            else:
                self.jobs.append(job)
        return job

    def _again(self, copy: Job) -> Job:
        """Return the job that a retry is one more attempt at."""
        job = next((each for each in self.jobs if each.id == copy.id and each.task == copy.task), copy)
        job.request, job.args, job.params = copy.request, copy.args, copy.params
        return job

    def drain(self, lane: str | None) -> list[Job]:
        """Run what is held, most important lane first, and what comes in meanwhile; return the jobs."""
        drained = []
        while (job := self._next(lane)) is not None:
            self._run(job)
            drained.append(job)
        return drained

    def _next(self, lane: str | None) -> Job | None:
        with self._lock:
            waiting = [job for job in self._waiting if lane in {None, job.lane}]
            if not waiting:
                return None
            order = [each.name for each in settings_of(waiting[0].app).lanes]
            job = min(waiting, key=lambda each: order.index(each.lane))  # the first of equals
            self._waiting.remove(job)
        return job

    def _run(self, job: Job) -> None:
        """Run a job, and the copies of it that it sends."""
        copy: Job | None = job
        while copy is not None:
            job, copy = copy, self._attempt(copy)

    def _attempt(self, job: Job) -> Job | None:
        """Run a job once, as a worker does, by Celery's own tracer; return the copy that goes on with it."""
        task = job.app.tasks.get(job.task)
        if task is None:
            self.backend_of(job.app).mark_as_failure(job.id, NotRegistered(job.task))
            self._end(job)
            return None
        job.attempts += 1
        with self._here.runs(job.id) as here:
            info = build_tracer(job.task, task, app=job.app)(job.id, job.args, job.params, job.request).info
        copy: Job | None = here.next
        if copy is None:
            # What the backend has of an error has lost its details.
            self._end(job, info and info.retval)
        return copy

    def _end(self, job: Job, error: Exception | None = None) -> None:
        """Note how a job has ended."""
        meta = self.backend_of(job.app).get_task_meta(job.id)
        job.state, job.result = meta["status"], error or meta["result"]
        if job.state in PROPAGATE_STATES:
            self._streams.fail(job.id, job.result)
        self._batches.end(job)

    def perform(self, task: Any, params: Mapping[str, Any]) -> dict[str, Any]:
        """Answer a call; of a stream, in its events, too."""
        message = self.answers.message(params)
        if task.name == "tasks.stream_message":
            self._streams.end(task.request.id, events_of(message), message)
        return message

    def cancel(self, job_or_batch_id: str) -> None:
        """Have what is held end as cancelled, without a run."""
        with self._lock:
            cancelled = [job for job in self._waiting if job_or_batch_id in {job.id, job.headers.get(BATCH_HEADER)}]
            self._waiting = [job for job in self._waiting if job not in cancelled]
        for job in cancelled:
            self.backend_of(job.app).store_result(job.id, Cancelled(), REVOKED)
            self._end(job)

    def entries_after(self, task_id: str, after: str) -> list[tuple[bytes, Mapping[bytes, bytes]]]:
        """Return the entries of a job's stream behind one of them."""
        return self._streams.entries_after(task_id, after)

    def has_job(self, task_id: str) -> bool:
        """Return whether a job of that id was submitted."""
        with self._lock:
            return any(job.id == task_id for job in self.jobs)

    def batch_fields(self, batch_id: str) -> dict[bytes, bytes]:
        """Return what is known of a batch."""
        return self._batches.fields(batch_id)

    def ended_after(self, batch_id: str, after: str) -> list[tuple[bytes, Mapping[bytes, bytes]]]:
        """Return which of a batch's jobs have ended, behind one of them."""
        return self._batches.ended_after(batch_id, after)
