"""An answer that is read while it is produced."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from celery.states import FAILURE, READY_STATES, REVOKED

from celery_app.client.cancelling import cancel
from celery_app.client.doubt import Doubt, stream_key
from celery_app.client.entries import EntryReader, Event, entries_of
from celery_app.client.event_texts import SILENCE, EventTexts
from celery_app.connection import broker_errors, redis_client
from celery_app.errors import BrokerUnreachable, DeadlineExceeded, LanesError, StreamExpired, error_event
from celery_app.keys import STREAM_KEPT
from celery_app.results import backend_of
from celery_app.stand_in import refuse_to_wait, stand_in

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from types import TracebackType

#: Milliseconds for which Redis is asked to wait in one command: half of the time in which it has to answer
#: (`celery_app.publishing.REPLY_TIMEOUT`), so that a busy one is not taken for dead.
BLOCK_MS = 700

#: Entries fetched at once at most: a late reader's whole answer in a few round trips.
MOST_ENTRIES = 500

#: Seconds past its deadline that a job's own last word is waited for.
GRACE = 2.0


class EventStream:
    """The events of one job, as an iterator of dicts; each as the Messages API sent it.

    Besides there is ``{"type": "restart"}``: the answer broke off and begins anew, drop what you have. An event of
    type ``error`` is the last one: the job has failed. Leaving early does not disturb the job, unless
    `cancel_on_close` is set.

    Attributes:
        task_id: of the job, for `stream_from` and for its `AsyncResult`.
        cancel_on_close: whether `close` cancels a job whose stream has not ended.
    """

    def __init__(
        self,
        app: Any,
        task_id: str,
        last_event_id: str | None = None,
        *,
        patience: float | None = None,
        cancel_on_close: bool = False,
        lane: str | None = None,
    ) -> None:
        """Read a job's stream.

        Args:
            app: the Celery application.
            task_id: of the job.
            last_event_id: of the last event that was read; None: begin at the beginning.
            patience: seconds from now after which a silent job is given up and cancelled; None: never. Where the lane
                is not known, seconds of silence after which it is given up and left alone.
            cancel_on_close: as the attribute.
            lane: that the job was sent to; None: not known.

        Raises:
            InvalidRequest: `last_event_id` is none of ours.
        """
        self.task_id = task_id
        self.cancel_on_close = cancel_on_close
        self._app, self._lane = app, lane
        self._block_ms = BLOCK_MS
        self._reader = EntryReader(task_id, last_event_id)
        self._patience = patience
        self._give_up_at = give_up_at(patience)
        self._doubt = Doubt(app, task_id)
        self._events = self._read()

    @property
    def last_event_id(self) -> str | None:
        """The id of the event that was given last, for SSE's ``id:`` field and for `stream_from`."""
        return self._reader.last_event_id

    @property
    def message(self) -> dict[str, Any] | None:
        """The whole message, once the stream has ended well; it is the job's result, too."""
        return self._reader.message

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        """Wait for the next event.

        Raises:
            DeadlineExceeded: the job's deadline passed and nobody has said anything; the job is cancelled. Of
                `stream_from`: there was no event for 300 s; the job is left alone.
            StreamExpired: the job ended too long ago.
            UnknownJob: nobody has submitted such a job to be streamed; after 5 s.
            BrokerUnreachable: no broker answers.
        """
        while True:
            event = next(self._events)
            if event is not None:
                return event

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Read no more."""
        self._events.close()
        if self.cancel_on_close and not self._reader.ended:
            cancel(self._app, self.task_id)

    def sse(self, heartbeat: float = SILENCE, *, named: bool = False) -> Generator[str]:
        """Yield the events as server-sent ones, for a response with the content type ``text/event-stream``.

        Each has its ``id``, with which a browser's EventSource comes back, and its ``data``. An error is the last one,
        in the form of the Messages API. While the answer is silent, comments keep the connection, and show that the
        reader has left: the web server closes the generator then, and this stream is closed.

        Args:
            heartbeat: seconds of silence after which a reader that has left is noticed. A comment comes after half of
                them: the first write to a connection whose other end is gone still succeeds, the second fails.
            named: whether each event has a field ``event``, as the SDKs that read such a stream want it. A browser's
                ``onmessage`` gets only those without.

        Raises:
            ValueError: `heartbeat` is not above 0.
        """
        texts = EventTexts(heartbeat)
        self._block_ms = min(BLOCK_MS, texts.block_ms)
        try:
            for event in self._events:
                text = texts.text_of(event, self.last_event_id, named=named)
                if text:
                    yield text
        except LanesError as error:
            yield texts.error_text(error, named=named)
        finally:
            with suppress(BrokerUnreachable):  # the reader has been told
                self.close()

    def _read(self) -> Generator[Event | None]:
        """Yield each event, and None whenever there was none for a while."""
        reader = self._reader
        ended: Event | StreamExpired | None = None
        while not reader.ended:
            # Once the job has ended, all that there is to read is there.
            entries = self._entries(self._block_ms if ended is None else None)
            for entry in entries:
                yield from reader.take(*entry)
            if entries and self._lane is None:
                self._give_up_at = give_up_at(self._patience)
            if not entries and ended is not None:
                yield reader.end(ended)
            elif not entries:
                ended = self._end()
                yield None

    def _entries(self, block: int | None) -> list[tuple[bytes, Mapping[bytes, bytes]]]:
        standing_in = stand_in()
        if standing_in is not None:
            return standing_in.entries_after(self.task_id, self._reader.after)
        key = stream_key(self._app, self.task_id)
        with broker_errors(self._app):
            return entries_of(redis_client(self._app).xread({key: self._reader.after}, MOST_ENTRIES, block))

    def _end(self) -> Event | StreamExpired | None:
        ended = end_of(self._app, self.task_id)
        if ended is None:
            self._doubt.check()
            refuse_to_wait("Reading a stream")
            # What a stand-in holds nobody works on while its reader waits.
            if stand_in() is not None or time.monotonic() > self._give_up_at:
                if self._lane is not None:
                    cancel(self._app, self.task_id)
                raise unended(self._app, self._lane, self._patience)
        return ended


def give_up_at(patience: float | None) -> float:
    """Return when a reader gives up that has patience from now on."""
    return float("inf") if patience is None else time.monotonic() + patience + GRACE


def unended(app: Any, lane: str | None, patience: float | None) -> DeadlineExceeded:
    """Return the error for a reader that has waited for as long as its job may take, or as itself wants to wait."""
    if lane is None and stand_in() is None:
        where, allowed = "elsewhere", patience or 0
        said = f"The stream was silent for {allowed:.0f} s. The job was not disturbed; read on by stream_from."
        return DeadlineExceeded(said, where=where, allowed=allowed)
    from celery_app.presence import why_silent  # brings redis-py along

    return DeadlineExceeded(where=f"before the stream has ended{why_silent(app, lane)}", allowed=patience or 0)


def end_of(app: Any, task_id: str) -> Event | StreamExpired | None:
    """Return what a stream ends with that does not say so itself; None while its job goes on."""
    with broker_errors(app):
        result = app.AsyncResult(task_id, backend=backend_of(app))
        state = result.state
        if state not in READY_STATES:
            return None
        if state in {FAILURE, REVOKED}:
            return error_event(result.result)
    return StreamExpired(task_id=task_id, kept=STREAM_KEPT)
