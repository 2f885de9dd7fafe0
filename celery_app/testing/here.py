"""What each thread of a test is about: a web server's run jobs side by side."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING

from celery import _state

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery_app.testing.job import Job


class Here(threading.local):
    """What a thread is about.

    Attributes:
        running: id of the job that it runs.
        next: the copy that this job has sent of itself.
        wanted_at_once: whether what it submits is not to be held.
    """

    running: str | None = None
    next: Job | None = None
    wanted_at_once = False

    @contextmanager
    def runs(self, job_id: str) -> Iterator[SimpleNamespace]:
        """Run a job within the block; what it gives has the job's `next` afterwards."""
        before, outcome = (self.running, self.next), SimpleNamespace(next=None)
        self.running, self.next = job_id, None
        try:
            yield outcome
        finally:
            outcome.next = self.next
            self.running, self.next = before

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Hold nothing that the block submits."""
        before, self.wanted_at_once = self.wanted_at_once, True
        try:
            yield
        finally:
            self.wanted_at_once = before


class InJob:
    """Is true in a thread that has a task in hand.

    Celery's own flag is true in all threads of a worker, or in none. With this in its place, a task that waits for
    another job is refused in a test, too, and a test's other threads are not.
    """

    def __bool__(self) -> bool:
        """Return whether this thread has one."""
        return _state.get_current_worker_task() is not None
