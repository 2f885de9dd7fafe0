"""How a running call is cancelled: a thread cannot be killed, but what it waits for can be ended."""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import redis

from celery_app.connections.redis_client import heartbeat_client, key_prefix, redis_client
from celery_app.keys import CANCEL
from celery_app.process.away import say_away
from celery_app.process.forks import begin_in_each_process
from celery_app.process.heartbeat import HEARTBEAT, Entry
from celery_app.stand_in import stand_in
from celery_app.stopping.told import gives_back, when_giving_back

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tasks.job import Job

#: Seconds between two looks for cancellations, while calls run: one command for all calls of a process, and a
#: cancelled call ends well within the promised 0.5 s.
LOOK_EVERY = 0.2


class Running:
    """One call while it runs.

    Attributes:
        marks: the keys in Redis of which one appears when the call is to be cancelled.
        cancelled: whether one has.
        given_back: whether its job goes back to its lane instead, because its worker stops.
    """

    def __init__(self, marks: list[str], *, may_return: bool = False) -> None:
        """Note what cancels it, and whether its job has a place in a lane; one that has none is finished."""
        self.marks = marks
        self.cancelled = False
        self._may_return = may_return
        self.given_back = may_return and gives_back()
        self._end: Callable[[], object] | None = None

    def use(self, end: Callable[[], object]) -> bool:
        """Note what ends the call; return whether it may go on."""
        self._end = end
        # In this order: whoever cancels meanwhile sees how to end it, or is seen here.
        return not self.is_hung_up

    @property
    def is_hung_up(self) -> bool:
        """Whether nobody waits for the call any more."""
        return self.cancelled or self.given_back

    def cancel(self) -> None:
        """Have the call end now; from another thread."""
        self.cancelled = True
        self._hang_up()

    def give_back(self) -> None:
        """Likewise, because its worker stops at once, if its job has a place to go back to."""
        if self._may_return:
            self.given_back = True
            self._hang_up()

    def _hang_up(self) -> None:
        if self._end is not None:
            with suppress(RuntimeError):  # the loop that it ran on is over
                self._end()


_running: ContextVar[Running | None] = ContextVar("running", default=None)


def running() -> Running | None:
    """Return the call that this thread makes, if it can be cancelled."""
    return _running.get()


class Watch:
    """Looks for the cancellations of a process's calls; nobody looks while there are none."""

    def __init__(self, client: redis.Redis) -> None:
        """Take a client that puts no prefix before the keys."""
        self._client = client
        self._looking = Entry("see cancellations", LOOK_EVERY, self._look)
        begin_in_each_process(self)
        when_giving_back(self.give_back)

    def begin(self) -> None:
        """Have no calls: the parent's are the parent's."""
        self._calls: set[Running] = set()
        self._lock = threading.Lock()

    @contextmanager
    def over(self, call: Running) -> Iterator[None]:
        """Watch over a call while the block runs."""
        with self._lock:
            self._calls.add(call)
        HEARTBEAT.wake(self._looking)
        if gives_back():
            call.give_back()  # it has begun just now
        token = _running.set(call)
        try:
            yield
        finally:
            _running.reset(token)
            with self._lock:
                self._calls.discard(call)

    def give_back(self) -> None:
        """Hang up on all calls of this process whose jobs came out of lanes."""
        with self._lock:
            calls = list(self._calls)
        for call in calls:
            call.give_back()

    def _look(self) -> bool:
        with self._lock:
            watched = [(mark, call) for call in self._calls if not call.cancelled for mark in call.marks]
        found = self._client.mget([mark for mark, _ in watched]) if watched else []
        for (_, call), value in zip(watched, found, strict=True):
            if value is not None:
                call.cancel()
        return bool(self._calls)


def is_cancelled(job: Job) -> bool:
    """Say whether a job was cancelled while it was queued; if Redis cannot tell, it was not."""
    return is_marked(job) if job.cancelled is None else job.cancelled


def is_marked(job: Job) -> bool:
    """Say whether a job is cancelled by now; if Redis cannot tell, it is not."""
    try:
        return bool(redis_client(job.app).exists(*_marks_of(job)))
    except redis.RedisError as exc:
        say_away("cancellations cannot be seen at the moment", exc)
        return False


@contextmanager
def cancellable(job: Job) -> Iterator[Running]:
    """Let the calls of this block be cancelled; what ends them then is for the block to raise."""
    if stand_in() is not None:
        yield Running([])
        return
    call = Running(_marks_of(job), may_return=bool(job.claim))
    with _watch_for(job.app).over(call):
        yield call


def _marks_of(job: Job) -> list[str]:
    return [CANCEL.of(key_prefix(job.app), each) for each in (job.id, job.batch) if each]


def _watch_for(app: Any) -> Watch:
    watch: Watch | None = getattr(app, "lanes_watch", None)
    if watch is None:
        watch = vars(app)["lanes_watch"] = Watch(heartbeat_client(app))
    return watch
