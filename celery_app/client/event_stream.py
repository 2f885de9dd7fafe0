"""An answer that is read while it is produced."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from celery_app.client.cancelling import cancel
from celery_app.client.entries import Event, entries_of
from celery_app.client.event_texts import SILENCE, EventTexts
from celery_app.client.following import MOST_ENTRIES, Following
from celery_app.connections.redis_client import broker_errors, redis_client, stream_key
from celery_app.errors import BrokerUnreachable, LanesError
from celery_app.stand_in import stand_in

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from types import TracebackType


class EventStream(Following):
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
        super().__init__(app, task_id, last_event_id, patience, lane)
        self.cancel_on_close = cancel_on_close
        self._events = self._read()

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
        self._block_ms = min(self._block_ms, texts.block_ms)
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
        while not self._reader.ended:
            yield from self._events_in(entries := self._entries(self._block()))
            if not entries and not self._reader.ended:
                self._look()
                yield None

    def _entries(self, block: int | None) -> list[tuple[bytes, Mapping[bytes, bytes]]]:
        standing_in = stand_in()
        if standing_in is not None:
            return standing_in.entries_after(self.task_id, self._reader.after)
        key = stream_key(self._app, self.task_id)
        with broker_errors(self._app):
            return entries_of(redis_client(self._app).xread({key: self._reader.after}, MOST_ENTRIES, block))
