"""What ends in Redis ends for whoever waits, too: any worker that serves a lane sees to it.

A job that kills its workers is dead-lettered by a script, a deadline passes in the queue, a queued job is cancelled:
no worker has it in hand. What no worker can take up is dead-lettered before any task has it.
"""

from __future__ import annotations

import logging
import threading
from functools import partial
from queue import SimpleQueue
from typing import Any

from celery import bootsteps

from celery_app.broker.dead_letters import say_dead_letter
from celery_app.connections.redis_client import heartbeat_client, key_prefix, redis_client
from celery_app.keys import TEXT
from celery_app.process.away import say_away
from celery_app.process.heartbeat import HEARTBEAT, Entry
from celery_app.scheduler.scripts import DONE_ENDED, TAKE_ENDED
from celery_app.worker.start import lanes_of
from tasks.ended_job import BURIED, EndedJob

logger = logging.getLogger(__name__)

#: Seconds between two looks: one command for each worker, and whoever waits hears of an end within about a second.
LOOK_EVERY = 1.0

#: Seconds until another worker takes what this one has taken and not finished.
TAKEN_FOR = 60.0

#: Times that a job is taken, once a minute: a result backend may be away for a day. What fails for longer always will.
MOST_TAKES = 1_440

#: Jobs that are taken at once; while there are as many, nobody pauses.
MOST_AT_ONCE = 20


class EndedJobs(bootsteps.StartStopStep):
    """The step of a worker's start that works off what ended; one that serves no lane leaves that to others."""

    name = "lanes-ended"
    requires = ("celery_app.worker.start:LaneWorker",)

    def __init__(self, worker: Any, **options: Any) -> None:
        self._looking = Entry("see what has ended", LOOK_EVERY, partial(self._look, worker.app))
        self._teller = _Teller(worker.app)
        super().__init__(worker, **options)

    def include_if(self, worker: Any) -> bool:
        """Return whether it serves a lane."""
        return bool(lanes_of(worker))

    def start(self, worker: Any) -> None:
        """Look from now on."""
        HEARTBEAT.wake(self._looking)

    def stop(self, worker: Any) -> None:
        """Look no more; what is not finished is another worker's in a while."""
        HEARTBEAT.end(self._looking)
        self._teller.stop()

    terminate = stop

    def _look(self, app: Any) -> bool:
        if not self._teller.is_busy:
            rows = _take(heartbeat_client(app), key_prefix(app))
            if rows:
                self._teller.tell(rows)
        return True


def work_off(app: Any) -> None:
    """Tell who waits for jobs that ended in Redis and that nobody has told of yet.

    Raises:
        redis.exceptions.RedisError: if Redis is away.
    """
    _tell_all(app, _take(redis_client(app), key_prefix(app)))


class _Teller:
    """Tells of what was taken in a thread of its own, and of all that has ended besides.

    The heartbeat cannot wait for it: result backends, a chord's other parts and a project's own code take their time.
    The thread starts with the first job that has ended, and stays, because Celery makes a result backend for each.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._taken: SimpleQueue[list[Any]] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self.is_busy = False

    def tell(self, rows: list[Any]) -> None:
        """Tell of what was taken, some time later; it is busy until then."""
        self.is_busy = True
        self._taken.put(rows)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="lanes-ended", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Let the thread end once it has told of all."""
        self._taken.put([])

    def _run(self) -> None:
        while rows := self._taken.get():
            try:
                _tell_all(self._app, rows)
            except Exception as exc:  # noqa: BLE001 - whatever it was, what is not told of is taken again
                say_away("what has ended cannot be told at the moment", exc)
            self.is_busy = False


def _tell_all(app: Any, rows: list[Any]) -> None:
    client, prefix = redis_client(app), key_prefix(app)
    while rows:
        for row in rows:
            _tell(app, client, prefix, row)
        rows = _take(client, prefix) if len(rows) == MOST_AT_ONCE else []


def _take(client: Any, prefix: str) -> list[Any]:
    rows: list[Any] = TAKE_ENDED.run(client, (), (prefix, MOST_AT_ONCE, round(TAKEN_FOR * 1000)))
    return rows


def _tell(app: Any, client: Any, prefix: str, row: list[Any]) -> None:
    job_id, queue, ending, reason = (part.decode(errors="replace") for part in row[:4])
    text = row[5] if row[5] is not None else client.get(TEXT.of(prefix, job_id))
    task, task_id = "?", job_id
    try:
        ended = EndedJob.read(app, queue, ending, reason, row[4] / 1000, text)
        if ended is not None:
            task, task_id = ended.job.task, ended.job.id
            ended.tell()
    except Exception as exc:  # noqa: BLE001 - one that cannot be told of, for whatever reason, holds up no other
        last = row[6] >= MOST_TAKES
        words = "will be told" if last else "can be told yet"
        logger.warning("%s[%s] has ended (%s), and nobody %s: %s", task, task_id, ending, words, type(exc).__name__)
        if not last:
            return
    DONE_ENDED.run(client, (), (prefix, job_id))
    if ending == BURIED:
        say_dead_letter(queue, task, task_id, reason)
