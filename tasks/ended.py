"""What ends in Redis ends for whoever waits, too: any worker that serves a lane sees to it.

A job that kills its workers is buried by a script, a deadline passes in the queue, a queued job is cancelled: no worker
has it in hand.
"""

from __future__ import annotations

import json
import logging
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from celery import bootsteps
from celery.app.task import Context
from celery.backends.base import DisabledBackend
from celery.states import PENDING, READY_STATES, SUCCESS

from celery_app.broker.body import read_body
from celery_app.broker.dead_letters import say_buried
from celery_app.broker.verdict import may_end
from celery_app.connection import key_prefix, redis_client
from celery_app.errors import Buried, Cancelled, DeadlineExceeded, KilledItsWorker, LanesError
from celery_app.job_keys import BATCH_HEADER
from celery_app.results import backend_of
from celery_app.scheduler.verbs import DONE_ENDED, TAKE_ENDED
from celery_app.worker import lanes_of
from tasks.admission import shut_for
from tasks.base import LaneTask
from tasks.endings import DEAD_LETTER
from tasks.messages import create_message
from tasks.outcome import tell_outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

#: Seconds between two looks: one command for each worker, and whoever waits hears of an end within about a second.
LOOK_EVERY = 1.0

#: Seconds until another worker takes what this one has taken and not finished.
TAKEN_FOR = 60.0

#: Jobs that are taken at once; while there are as many, nobody pauses.
MOST_AT_ONCE = 20

#: How a job may end in Redis, beside being cancelled.
BURIED, OVERDUE = "buried", "deadline"

#: How the broker's scripts begin the reason of a job that took its worker along.
_KILLED = ("its worker died", "rejected ")


class EndedJobs(bootsteps.StartStopStep):
    """The step of a worker's start that works off what ended; one that serves no lane leaves that to others."""

    name = "lanes-ended"
    requires = ("celery_app.worker:LaneWorker",)

    def __init__(self, worker: Any, **options: Any) -> None:
        """Look at nothing yet."""
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        super().__init__(worker, **options)

    def include_if(self, worker: Any) -> bool:
        """Return whether it serves a lane."""
        return bool(lanes_of(worker))

    def start(self, worker: Any) -> None:
        """Look from now on."""
        self._thread = threading.Thread(target=self._run, args=(worker.app,), name="lanes-ended", daemon=True)
        self._thread.start()

    def stop(self, worker: Any) -> None:
        """Look no more; what is not finished is another worker's in a while."""
        self._over.set()

    terminate = stop

    def _run(self, app: Any) -> None:
        while not self._over.wait(LOOK_EVERY):
            try:
                work_off(app)
            except Exception as exc:  # noqa: BLE001 - whatever it was, nobody starts this thread again
                logger.debug("what has ended cannot be seen at the moment: %s", exc)


def work_off(app: Any) -> None:
    """Tell who waits for jobs that ended in Redis and that nobody has told of yet.

    Raises:
        redis.exceptions.RedisError: if Redis is away.
    """
    client, prefix = redis_client(app), key_prefix(app)
    while True:
        rows = TAKE_ENDED.run(client, (), (prefix, MOST_AT_ONCE, round(TAKEN_FOR * 1000)))
        for row in rows:
            _tell(app, client, prefix, row)
        if len(rows) < MOST_AT_ONCE:
            return


def _tell(app: Any, client: Any, prefix: str, row: list[Any]) -> None:
    job_id, queue, ending, reason = (part.decode(errors="replace") for part in row[:4])
    text = row[5] if row[5] is not None else client.get(f"{prefix}lanes:text:{job_id}")
    task, task_id = "?", job_id
    try:
        ended = EndedJob.read(app, queue, ending, reason, row[4] / 1000, text)
        if ended is not None:
            task, task_id = ended.request.task, ended.request.id
            ended.tell(app)
    except Exception as exc:  # noqa: BLE001 - one that cannot be told of, for whatever reason, holds up no other
        logger.warning(
            "%s[%s] has ended (%s), and nobody can be told yet: %s", task, task_id, ending, type(exc).__name__
        )
        return
    DONE_ENDED.run(client, (), (prefix, job_id))
    if ending == BURIED:
        say_buried(queue, task, task_id, reason)


@dataclass(frozen=True, slots=True)
class EndedJob:
    """A job that nobody will work on any more.

    Attributes:
        request: as a task has it.
        error: why; None: it was cancelled.
    """

    request: Any
    error: LanesError | None

    @classmethod
    def read(
        cls, app: Any, queue: str, ending: str, reason: str, allowed: float, text: bytes | None
    ) -> EndedJob | None:
        """Return the job of a message; None for one that is no job."""
        try:
            request = _request_in(json.loads(text or b""))
        except (ValueError, TypeError, KeyError, AttributeError):
            return None
        request["delivery_info"] = {**(request.get("delivery_info") or {}), "routing_key": queue}
        request[DEAD_LETTER] = reason
        return cls(
            Context(request, called_directly=False, is_eager=False), _error_of(app, queue, ending, reason, allowed)
        )

    def tell(self, app: Any) -> None:
        """End the job, for its caller, its callbacks, its chord, its batch, its readers and the figures; once.

        A worker that dies in the middle leaves the rest to another: what was told is told again, and heard once.
        """
        request = self.request
        task = app.tasks.get(request.task)
        in_lanes = isinstance(task, LaneTask)
        # A task that this worker does not know may be asked for by somebody, too.
        teller: Any = task if in_lanes else app.tasks[create_message.name]
        with _in_hand(teller, request):
            if self.error is None or not may_end(app, request.id, request.get(BATCH_HEADER)):
                _end_cancelled(teller)
                return
            backend = backend_of(app) if task is None else task.backend
            state = PENDING if isinstance(backend, DisabledBackend) else backend.get_state(request.id)
            if state == SUCCESS:
                return
            if state not in READY_STATES:
                stored = not (request.ignore_result or getattr(task, "ignore_result", False))
                backend.mark_as_failure(request.id, self.error, request=request, store_result=stored)
            if in_lanes:
                teller.on_failure(self.error, request.id, request.args, request.kwargs, None)
            else:
                tell_outcome(teller, "failed")
            teller.send_event("task-failed", exception=repr(self.error), traceback="")


def _error_of(app: Any, queue: str, ending: str, reason: str, allowed: float) -> LanesError | None:
    if ending == BURIED:
        return (KilledItsWorker if reason.startswith(_KILLED) else Buried)(reason=reason)
    if ending == OVERDUE:
        why = shut_for(app, queue)
        where = f"in the queue, where it waited for {why}" if why else "in the queue"
        return DeadlineExceeded(where=where, allowed=allowed)
    return None


@contextmanager
def _in_hand(task: LaneTask, request: Any) -> Iterator[None]:
    task.request_stack.push(request)
    try:
        yield
    finally:
        task.request_stack.pop()


def _end_cancelled(task: LaneTask) -> None:
    try:
        task.end_cancelled()
    except Cancelled:
        return


def _request_in(message: Any) -> dict[str, Any]:
    """Return what a task would see of a message of kombu's, as Celery's worker puts it together."""
    headers, properties = message["headers"], message["properties"]
    try:
        args, kwargs, embed = read_body(message)
    except ValueError:
        args, kwargs, embed = [], {}, {}  # the headers say enough for a result
    known = {"args": args, "kwargs": kwargs, "properties": properties, "reply_to": properties.get("reply_to")}
    return {**headers, **known, "id": headers["id"], "task": headers["task"], **(embed or {})}
