"""An answer that is read while it is produced, by a coroutine."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from celery_app.client.async_connection import connected
from celery_app.client.cancelling import cancel
from celery_app.client.doubt import Doubt
from celery_app.client.entries import EntryReader, Event, entries_of
from celery_app.client.event_texts import SILENCE, EventTexts
from celery_app.client.following import MOST_ENTRIES, Following
from celery_app.client.sending import send
from celery_app.connections.redis_client import broker_errors, stream_key
from celery_app.errors import BrokerUnreachable, LanesError
from celery_app.keys import STREAM_TASK
from celery_app.stand_in import stand_in

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
    from types import TracebackType

    from celery_app.lanes import Lane

    _Entries: TypeAlias = list[tuple[bytes, Mapping[bytes, bytes]]]
    _EntriesWithin: TypeAlias = Callable[[int | None], Awaitable[_Entries]]


class AsyncEventStream(Following):
    """`EventStream` for ``async for``; what its documentation says holds here, too.

    Attributes:
        task_id: of the job; known before it is sent.
        cancel_on_close: whether `aclose` cancels a job whose stream has not ended.
    """

    def __init__(
        self,
        app: Any,
        task_id: str | None,
        last_event_id: str | None = None,
        *,
        patience: float | None = None,
        cancel_on_close: bool = False,
        call: tuple[Lane, Mapping[str, Any]] | None = None,
        names: Mapping[str, Any] | None = None,
    ) -> None:
        """Read a job's stream.

        Args:
            app: the Celery application.
            task_id: of a job that was sent; None: of the one in `call`.
            last_event_id: of the last event that was read; None: begin at the beginning.
            patience: seconds from now after which a silent job is given up and cancelled; None: never. Where the lane
                is not known, seconds of silence after which it is given up and left alone.
            cancel_on_close: as the attribute.
            call: lane and parameters of a job that is sent with the first event that is waited for.
            names: of that job: ``tenant`` and ``unique``.

        Raises:
            InvalidRequest: `last_event_id` is none of ours.
        """
        lane = call[0].name if call else None
        super().__init__(app, task_id or str(uuid.uuid4()), last_event_id, patience, lane)
        self.cancel_on_close = cancel_on_close
        self._call, self._names = call, dict(names or {})
        self._events = self._read()

    def __await__(self) -> Generator[Any, None, Self]:
        """Send the job now, and return the stream itself."""
        return self._sent().__await__()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """Wait for the next event; raises what `EventStream` raises, and what sending a job raises."""
        while True:
            event = await anext(self._events)
            if event is not None:
                return event

    async def __aenter__(self) -> Self:
        """Send the job, and return the stream itself."""
        return await self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Read no more."""
        await self._events.aclose()
        if self.cancel_on_close and self._call is None and not self._reader.ended:
            await asyncio.shield(asyncio.to_thread(cancel, self._app, self.task_id))

    async def sse(self, heartbeat: float = SILENCE, *, named: bool = False) -> AsyncGenerator[str]:
        """Yield the events as server-sent ones; what `EventStream.sse` says holds here, too.

        A web server that cancels the request whose reader has left ends the stream at once.
        """
        texts = EventTexts(heartbeat)
        self._block_ms = min(self._block_ms, texts.block_ms)
        try:
            async for event in self._events:
                text = texts.text_of(event, self.last_event_id, named=named)
                if text:
                    yield text
        except LanesError as error:
            yield texts.error_text(error, named=named)
        finally:
            with suppress(BrokerUnreachable):  # the reader has been told
                await self.aclose()

    async def _sent(self) -> Self:
        if self._call is not None:
            (lane, params), self._call = self._call, None
            # In a thread: a full lane or a dead broker may take seconds to say so.
            sent = await asyncio.to_thread(
                send, self._app, STREAM_TASK, lane, params, task_id=self.task_id, **self._names
            )
            if sent.id != self.task_id:  # there is such a job already
                self.task_id, self._reader = sent.id, EntryReader(sent.id)
        return self

    async def _read(self) -> AsyncGenerator[Event | None]:
        await self._sent()
        self._doubt = Doubt(self._app, self.task_id)
        with broker_errors(self._app):
            async with self._source() as entries_within:
                while not self._reader.ended:
                    entries = await entries_within(self._block())
                    for event in self._events_in(entries):
                        yield event
                    if not entries and not self._reader.ended:
                        await asyncio.to_thread(self._look)
                        yield None

    @asynccontextmanager
    async def _source(self) -> AsyncGenerator[_EntriesWithin]:
        """Give the block what waits for entries, so many milliseconds at most."""
        standing_in = stand_in()
        if standing_in is not None:

            async def at_once(_: int | None) -> _Entries:
                return standing_in.entries_after(self.task_id, self._reader.after)

            yield at_once
            return
        key = stream_key(self._app, self.task_id)
        async with connected(self._app) as client:

            async def from_redis(block: int | None) -> _Entries:
                return entries_of(await client.xread({key: self._reader.after}, MOST_ENTRIES, block))

            yield from_redis
