"""Run: a batch of documents, some summaries, and a person who asks a question every half second."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from celery_app.lanes import BATCH, CRITICAL, LANES, NORMAL
from celery_app.results import backend_of
from demo import requests
from demo.job import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from demo.stack import Stack

    #: From a user id to the arguments of `create_message`.
    Request = Callable[[str], dict[str, Any]]

#: Summaries that a web hook might want meanwhile.
SUMMARIES = 10
#: Seconds between two questions: a busy chat.
QUESTION_SECONDS = 0.5
#: Questions at most, which bounds what a run costs where documents take long.
MOST_QUESTIONS = 200
#: Seconds between two looks at the results: often enough to watch, seldom enough to cost nothing.
COLLECT_SECONDS = 0.5
#: Seconds of sleep in between: how late a question may be.
TICK = 0.01


class Run:
    """The demo's load on a running stack.

    Attributes:
        jobs: lane name -> jobs, in the order of their submission.
    """

    def __init__(self, stack: Stack, model: str, documents: list[str], show: Callable[[Run], None]) -> None:
        """Prepare it; nothing is submitted yet.

        Args:
            stack: that it runs on.
            model: that all requests name.
            documents: to classify.
            show: is called after every look at the results.
        """
        self.jobs: dict[str, list[Job]] = {lane.name: [] for lane in LANES}
        self.documents = documents
        self._model, self._stack, self._show = model, stack, show
        self._pending: dict[str, Job] = {}
        import tasks

        self._task = stack.app.tasks[tasks.create_message.name]
        self._next_question = self._next_collection = 0.0

    def until_answered(self) -> None:
        """Submit everything, and return when everything is answered.

        Raises:
            LanesError: whatever stops the stack, or a full lane.
        """
        for lane, request in self._backlog():
            self._submit(lane, request)
            self._tick()
        while self._waits_for(BATCH.name, NORMAL.name):
            self._tick()
            time.sleep(TICK)
        while self._pending:
            self._look()
            time.sleep(TICK)

    def planned(self, lane: str) -> int | None:
        """Return how many jobs a lane will have got in the end, None where nobody knows."""
        return {BATCH.name: len(self.documents), NORMAL.name: min(SUMMARIES, len(self.documents))}.get(lane)

    def answered(self, lane: str) -> int:
        """Return how many jobs of a lane have ended."""
        return sum(job.ended is not None for job in self.jobs[lane])

    def _backlog(self) -> Iterator[tuple[str, Request]]:
        for document in self.documents:
            yield BATCH.name, partial(requests.classify, self._model, document)
        for document in self.documents[:SUMMARIES]:
            yield NORMAL.name, partial(requests.summarize, self._model, document)

    def _submit(self, lane: str, request: Request) -> None:
        user_id = f"demo-{lane}-{len(self.jobs[lane])}"
        kwargs = request(user_id)
        submitted = time.time()
        result = self._task.apply_async(kwargs=kwargs, queue=lane)
        job = Job(lane, user_id, submitted, result.id)
        self.jobs[lane].append(job)
        self._pending[result.id] = job

    def _tick(self) -> None:
        """Ask a question if it is time for one, and look at the results."""
        number = len(self.jobs[CRITICAL.name])
        if time.monotonic() >= self._next_question and number < MOST_QUESTIONS:
            self._next_question = time.monotonic() + QUESTION_SECONDS
            self._submit(CRITICAL.name, partial(requests.answer, self._model, number))
        self._look()

    def _look(self) -> None:
        if time.monotonic() < self._next_collection:
            return
        self._next_collection = time.monotonic() + COLLECT_SECONDS
        self._stack.check()
        for task_id, state, error in self._results():
            job = self._pending.pop(task_id)
            job.ended = time.time()
            job.error = None if state == "SUCCESS" else str(error)
        self._show(self)

    def _results(self) -> Iterator[tuple[str, str, Any]]:
        """All at once: asking for each job by itself would keep this process, and the broker, busy."""
        found = list(backend_of(self._stack.app).get_many(list(self._pending), interval=0, max_iterations=1))
        for task_id, meta in found:
            yield task_id, meta["status"], meta["result"]

    def _waits_for(self, *lanes: str) -> bool:
        return any(job.lane in lanes for job in self._pending.values())
