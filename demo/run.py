"""Run: a batch of documents, some summaries, and a person who asks a question every half second."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from celery_app.lanes import BATCH, CRITICAL, LANES, NORMAL, Lane
from celery_app.results.backend import backend_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from demo.stack import Stack

#: Small and quick, as a person who only tries the lanes wants it.
MODEL = "claude-haiku-4-5"
#: Output tokens at most: a class is a word, a summary a sentence or two, a chat answer a short paragraph.
CLASS_TOKENS, SUMMARY_TOKENS, ANSWER_TOKENS = 10, 100, 100
CLASSES = ("web", "data", "testing", "tooling", "security", "language", "other")
CLASSIFY = f"Classify the document. Answer with one word out of: {', '.join(CLASSES)}."
SUMMARIZE = "Summarize the document in one sentence."
QUESTIONS = (
    "What is a priority queue?",
    "Why is the sky blue?",
    "How do I undo the last git commit?",
    "What is the difference between a list and a tuple?",
    "What does HTTP status 429 mean?",
    "What is the capital of Australia?",
)
#: Summaries that a web hook might want meanwhile.
SUMMARIES = 10
#: Seconds between two questions, of a busy chat, and two looks at the results: often enough to watch, and cheap.
QUESTION_SECONDS = LOOK_SECONDS = 0.5
#: Seconds of sleep in between: how late a question may be.
TICK = 0.01


@dataclass(slots=True)
class Job:
    """A submitted request and what became of it; times are seconds since the epoch, 0 is not yet."""

    user_id: str  # in the request's metadata, by which the simulator's log of calls names it
    submitted: float  # just before it was handed to Celery
    arrived: float = 0.0  # when its first call reached the API
    ended: float = 0.0  # when its result was seen
    error: str | None = None  # what it failed with


class Run:
    """The demo's load on a running stack.

    Attributes:
        jobs: lane name -> jobs, in the order of their submission.
    """

    def __init__(self, stack: Stack, documents: list[str]) -> None:
        """Prepare it; nothing is submitted yet."""
        import tasks

        self.jobs: dict[str, list[Job]] = {lane.name: [] for lane in LANES}
        self._pending: dict[str, Job] = {}
        self._stack, self._documents = stack, documents
        self._task = stack.app.tasks[tasks.create_message.name]
        self._next_question = self._next_look = 0.0

    def until_answered(self) -> Iterator[None]:
        """Submit everything, and end when everything is answered; yield after every look at the results."""
        for document in self._documents:
            self._submit(BATCH, document, CLASS_TOKENS, system=CLASSIFY)
            yield from self._tick(asking=True)
        for document in self._documents[:SUMMARIES]:
            self._submit(NORMAL, document, SUMMARY_TOKENS, system=SUMMARIZE)
        while self._pending:
            others = any(self.answered(lane.name) < len(self.jobs[lane.name]) for lane in (BATCH, NORMAL))
            yield from self._tick(asking=others)
            time.sleep(TICK)

    def answered(self, lane: str) -> int:
        """Return how many jobs of a lane have ended."""
        return sum(job.ended > 0 for job in self.jobs[lane])

    def _submit(self, lane: Lane, text: str, max_tokens: int, **more: str) -> None:
        job = Job(f"demo-{lane.name}-{len(self.jobs[lane.name])}", time.time())
        params = {"model": MODEL, "max_tokens": max_tokens, "metadata": {"user_id": job.user_id}, **more}
        params["messages"] = [{"role": "user", "content": text}]
        self._pending[self._task.apply_async(kwargs=params, queue=lane.name).id] = job
        self.jobs[lane.name].append(job)

    def _tick(self, *, asking: bool) -> Iterator[None]:
        """Ask a question if it is time for one, and look at the results if it is time for that."""
        number = len(self.jobs[CRITICAL.name])
        if asking and time.monotonic() >= self._next_question:
            self._next_question = time.monotonic() + QUESTION_SECONDS
            self._submit(CRITICAL, QUESTIONS[number % len(QUESTIONS)], ANSWER_TOKENS)
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + LOOK_SECONDS
            self._stack.check()
            self._collect()
            yield

    def _collect(self) -> None:
        """Ask for all results at once: for each by itself would keep this process, and the broker, busy."""
        found = backend_of(self._stack.app).get_many([*self._pending], interval=0, max_iterations=1)
        for task_id, meta in list(found):
            job = self._pending.pop(task_id)
            job.ended = time.time()
            job.error = None if meta["status"] == "SUCCESS" else str(meta["result"])
