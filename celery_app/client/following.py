"""Whoever reads a job's stream, however its entries are fetched: what they say, and when reading is over."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from celery.states import FAILURE, READY_STATES, REVOKED

from celery_app.client.cancelling import cancel
from celery_app.client.doubt import Doubt
from celery_app.client.entries import EntryReader, Event
from celery_app.connections.redis_client import broker_errors
from celery_app.errors import DeadlineExceeded, StreamExpired, error_event
from celery_app.keys import STREAM_KEPT
from celery_app.results.backend import backend_of
from celery_app.stand_in import refuse_to_wait, stand_in

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

#: Milliseconds for which Redis is asked to wait in one command: half of the time in which it has to answer
#: (`celery_app.jobs.publishing.REPLY_TIMEOUT`), so that a busy one is not taken for dead.
BLOCK_MS = 700

#: Entries fetched at once at most: a late reader's whole answer in a few round trips.
MOST_ENTRIES = 500

#: Seconds past its deadline that a job's own last word is waited for.
GRACE = 2.0


class Following:
    """What the readers of a stream have in common.

    Attributes:
        task_id: of the job.
    """

    def __init__(
        self, app: Any, task_id: str, last_event_id: str | None, patience: float | None, lane: str | None
    ) -> None:
        self.task_id = task_id
        self._app, self._lane, self._patience = app, lane, patience
        self._block_ms = BLOCK_MS
        self._reader = EntryReader(task_id, last_event_id)
        self._doubt = Doubt(app, task_id)
        self._ended: Event | StreamExpired | None = None
        self._be_patient()

    @property
    def last_event_id(self) -> str | None:
        """The id of the event that was given last, for SSE's ``id:`` field and for `stream_from`."""
        return self._reader.last_event_id

    @property
    def message(self) -> dict[str, Any] | None:
        """The whole message, once the stream has ended well; it is the job's result, too."""
        return self._reader.message

    def _block(self) -> int | None:
        """Return the milliseconds to wait for entries; None: the job has ended, so all that will come is there."""
        return self._block_ms if self._ended is None else None

    def _events_in(self, entries: list[tuple[bytes, Mapping[bytes, bytes]]]) -> Generator[Event]:
        """Yield the events of what was read; where nothing more can come, what the stream ends with."""
        for entry in entries:
            yield from self._reader.take(*entry)
        if entries and self._lane is None:
            self._be_patient()
        if not entries and self._ended is not None:
            yield self._reader.end(self._ended)

    def _be_patient(self) -> None:
        self._give_up_at = float("inf") if self._patience is None else time.monotonic() + self._patience + GRACE

    def _look(self) -> None:
        """See whether a silent job has ended.

        Raises:
            DeadlineExceeded: there is nothing to wait for any more.
            UnknownJob, BrokerUnreachable: likewise.
        """
        self._ended = _end_of(self._app, self.task_id)
        if self._ended is not None:
            return
        self._doubt.check()
        refuse_to_wait("Reading a stream")
        # What a stand-in holds nobody works on while its reader waits.
        if stand_in() is not None or time.monotonic() > self._give_up_at:
            if self._lane is not None:
                cancel(self._app, self.task_id)
            raise _unended(self._app, self._lane, self._patience)


def _unended(app: Any, lane: str | None, patience: float | None) -> DeadlineExceeded:
    """Return the error for a reader that has waited for as long as its job may take, or as itself wants to wait."""
    if lane is None and stand_in() is None:
        where, allowed = "elsewhere", patience or 0
        said = f"The stream was silent for {allowed:.0f} s. The job was not disturbed; read on by stream_from."
        return DeadlineExceeded(said, where=where, allowed=allowed)
    from celery_app.worker.presence import why_silent  # brings redis-py along

    return DeadlineExceeded(where=f"before the stream has ended{why_silent(app, lane)}", allowed=patience or 0)


def _end_of(app: Any, task_id: str) -> Event | StreamExpired | None:
    """Return what a stream ends with that does not say so itself; None while its job goes on."""
    with broker_errors(app):
        result = app.AsyncResult(task_id, backend=backend_of(app))
        state = result.state
        if state not in READY_STATES:
            return None
        if state in {FAILURE, REVOKED}:
            return error_event(result.result)
    return StreamExpired(task_id=task_id, kept=STREAM_KEPT)
