"""The step of a worker's start that hears when it is told to stop, and how often."""

from __future__ import annotations

import logging
import threading
import time
from _thread import start_new_thread
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from celery import bootsteps, signals

from celery_app.broker.rules import LANE_NAMES
from celery_app.stopping import told
from celery_app.stopping.children import FINISH, GIVE_BACK, Children
from celery_app.stopping.giving_back import end_anyway, end_process, give_back, has_processes
from celery_app.stopping.leaving import say_leaving
from celery_app.stopping.softly import SoftShutdown

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

#: Seconds within which signals are one: a supervisor tells the whole process group, and a shell or a launcher among
#: them passes it on.
ONE_SIGNAL = 1.0


class Stopper(bootsteps.StartStopStep):
    """Hears signals in the main thread, which may hold any lock just then, and acts in a thread of its own."""

    name = "lanes-stopper"

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        # The one queue that a signal handler may use; None: there will be no more.
        self._wishes: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._worker = worker
        self._told_at: float | None = None
        self._over = False
        self._children = Children()  # before the pool forks
        worker.lanes_stopper = self

    def include_if(self, worker: Any) -> bool:
        """Return whether it serves a lane."""
        return any(name in LANE_NAMES for name in worker.app.amqp.queues.consume_from)

    def start(self, worker: Any) -> None:
        """Hear from now on."""
        told.begin()
        # A worker in a thread is a guest of somebody's process, such as a test's, which is not to be ended.
        self._is_guest = threading.current_thread() is not threading.main_thread()
        threading.Thread(target=self._act, name="lanes-stopper", daemon=True).start()
        signals.worker_shutting_down.connect(self._heard)
        self._softly = SoftShutdown(worker, self._stop)
        self._hear_softly()
        self._soft_shutdown, worker.wait_for_soft_shutdown = worker.wait_for_soft_shutdown, self._wait
        # Not at this step's own stop, which Celery may have before that of its pool, whose slots it waits for.
        self._on_stopped, worker.blueprint.on_stopped = worker.blueprint.on_stopped, self._stopped

    def close(self, worker: Any) -> None:
        """Hear that it stops, for whatever reason."""
        self._stop()

    def give_back(self) -> None:
        """Give back what runs; in a signal handler, too."""
        self.let_children_end()
        if not self._is_guest:
            # Takes no lock, as a Thread would; whatever hangs from now on, it ends.
            start_new_thread(end_anyway, (lambda: self._over,))
        self._wishes.put(self._give_back)

    def let_children_end(self) -> None:
        """Have a pool's processes end at SIGTERM, whatever they do."""
        self._children.tell(GIVE_BACK)

    def _heard(self, how: str, **_: Any) -> None:
        if how != "Warm":
            return
        self._hear_softly()  # Celery has changed its handler of Ctrl-C just now
        now = time.monotonic()
        if self._told_at is None:
            self._told_at = now
            self._children.tell(FINISH)
            self._stop()
        elif now > self._told_at + ONE_SIGNAL:
            self.give_back()

    def _hear_softly(self) -> None:
        if not (self._is_guest or has_processes(self._worker.pool)):
            self._softly.hear()

    def _stop(self) -> None:
        told.stop()
        self._wishes.put(say_leaving)

    def _give_back(self) -> None:
        if give_back(self._worker) and not self._is_guest:
            end_process()

    def _stopped(self) -> None:
        self._over = True
        self._wishes.put(None)
        if self._on_stopped:
            self._on_stopped()

    def _act(self) -> None:
        while wish := self._wishes.get():
            try:
                wish()
            except Exception:
                logger.exception("a worker that was told to stop goes on with that")

    def _wait(self) -> None:
        """Do what Celery's soft shutdown does, where it has not been done before: a pool's processes need no lock."""
        self._stop()
        if has_processes(self._worker.pool):
            self._soft_shutdown()
