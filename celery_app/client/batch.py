"""A batch: many jobs under one id, whose state is in Redis."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from celery.states import PENDING, SUCCESS

from celery_app.client.application import configured
from celery_app.client.cancelling import mark
from celery_app.client.entries import entries_of
from celery_app.client.following import BLOCK_MS
from celery_app.configuration.variables import NANODOLLARS
from celery_app.connections.redis_client import broker_errors, key_prefix, redis_client
from celery_app.errors import LanesError, UnknownBatch
from celery_app.keys import BATCH_COUNTS, BATCH_ENDED, BATCH_KEPT
from celery_app.results.backend import backend_of
from celery_app.stand_in import refuse_to_wait, stand_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery_app.errors import InvalidItem

#: Results fetched at once at most.
MOST_RESULTS = 500

_SECONDS_PER_DAY = 86_400

#: Fields of a batch's hash, and of its counts.
_NUMBERS = ("queued", "done", "failed", "cancelled", "invalid")


@dataclass(frozen=True, slots=True)
class BatchCounts:
    """How far a batch has got.

    Attributes:
        queued: jobs put into their lane so far, whatever became of them since; it never falls. What waits or runs is
            ``queued - ended``.
        done: jobs with a message.
        failed: jobs that failed for good.
        cancelled: jobs that were cancelled.
        invalid: items that were left out.
        submitted: whether all items have been put into the lane.
        usd: dollars that its calls have cost so far; 0 where EZAI_PRICES is not set.
        saved: dollars that message batches have spared it.
    """

    queued: int
    done: int
    failed: int
    cancelled: int
    invalid: int
    submitted: bool
    usd: float = 0.0
    saved: float = 0.0

    @property
    def ended(self) -> int:
        """Jobs that have ended, one way or another."""
        return self.done + self.failed + self.cancelled

    @property
    def complete(self) -> bool:
        """Whether all is submitted and has ended."""
        return self.submitted and self.ended >= self.queued


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What became of one item.

    Attributes:
        index: of the item, from 0.
        task_id: of its job.
        message: the message as a dict; None if there is none.
        error: why there is none.
    """

    index: int
    task_id: str
    message: dict[str, Any] | None
    error: Exception | None


class Batch:
    """A handle; any number of processes may have one, and its id is all that it takes.

    Attributes:
        id: of the batch.
        invalid: the items that were left out, as far as this handle has submitted them.
        found: likewise, index of an item -> id of the job that there was already by its name; it is none of the batch.
    """

    def __init__(self, app: Any, batch_id: str) -> None:
        self.id = batch_id
        self.invalid: list[InvalidItem] = []
        self.found: dict[int, str] = {}
        self._app = app
        self._key = BATCH_COUNTS.of(key_prefix(app), batch_id)

    @classmethod
    def load(cls, batch_id: str, app: Any = None) -> Batch:
        """Return the batch of an id, in whatever process.

        Args:
            batch_id: as its handle had it.
            app: the Celery application; None: the process's own.

        Raises:
            UnknownBatch: there is none.
        """
        batch = cls(configured(app), batch_id)
        batch.counts()
        return batch

    def counts(self) -> BatchCounts:
        """Return how far the batch has got.

        Raises:
            UnknownBatch: it ended too long ago.
        """
        fields = self._fields()
        if not fields:
            raise UnknownBatch(batch_id=self.id, kept_days=BATCH_KEPT / _SECONDS_PER_DAY)
        numbers = {name: int(fields.get(name.encode(), 0)) for name in _NUMBERS}
        usd, saved = (int(fields.get(name, 0)) / NANODOLLARS for name in (b"usd", b"saved"))
        return BatchCounts(**numbers, submitted=b"submitted" in fields, usd=usd, saved=saved)

    def _fields(self) -> dict[bytes, bytes]:
        standing_in = stand_in()
        if standing_in is not None:
            return standing_in.batch_fields(self.id)
        with broker_errors(self._app):
            fields: Any = redis_client(self._app).hgetall(self._key)
        return dict(fields)

    def results(self, patience: float | None = None) -> Iterator[BatchResult]:
        """Iterate over all results from the first on, in the order in which the jobs ended; wait for those to come.

        A job that takes its worker along again and again ends as failed; `patience` is for jobs that nobody works on.
        One that failed and is replayed (`celery_app.dead_letters`) meanwhile comes again when it ends again.

        Args:
            patience: seconds without another result after which to give up; None: never.

        Raises:
            TimeoutError: when they are over.
            WouldBlock: within a task, if there is something to wait for.
        """
        after, seen, heard_at, is_over = "0", set[int](), time.monotonic(), False
        while True:
            entries = self._ended_after(after, wait=not is_over)
            if is_over and not entries:
                return
            for entry_id, fields in entries:
                after, index, heard_at = entry_id.decode(), int(fields[b"i"]), time.monotonic()
                seen.add(index)  # one that was replayed meanwhile ends twice
                yield self._result(index)
            counts = self.counts()
            is_over = counts.complete and len(seen) >= counts.ended
            if is_over:
                continue  # what was replayed may have ended between the two commands
            refuse_to_wait("Batch.results()")
            # What a stand-in holds nobody works on meanwhile.
            if stand_in() is not None or (patience is not None and time.monotonic() - heard_at > patience):
                raise TimeoutError(f"no job of batch {self.id} has ended for {patience or 0} s: {counts}")

    def cancel(self) -> None:
        """Cancel all jobs that have not ended; each is counted once a worker comes to it."""
        with broker_errors(self._app):
            mark(self._app, self.id)

    def _ended_after(self, after: str, *, wait: bool) -> list[Any]:
        standing_in = stand_in()
        if standing_in is not None:
            return standing_in.ended_after(self.id, after)
        with broker_errors(self._app):
            reply = redis_client(self._app).xread(
                {BATCH_ENDED.of(key_prefix(self._app), self.id): after}, MOST_RESULTS, BLOCK_MS if wait else None
            )
        return entries_of(reply)

    def _result(self, index: int) -> BatchResult:
        task_id = f"{self.id}-{index}"
        with broker_errors(self._app):
            result = self._app.AsyncResult(task_id, backend=backend_of(self._app))
            state, value = result.state, result.result
        if state == SUCCESS:
            return BatchResult(index, task_id, value, None)
        gone = LanesError("the result backend has forgotten the result (result_expires)")
        return BatchResult(index, task_id, None, gone if state == PENDING else value)
