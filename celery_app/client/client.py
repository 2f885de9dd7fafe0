"""The client of one Celery application; `celery_app.client` has one for the process's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from anthropic.types import Message
    from celery.result import AsyncResult

    from celery_app.client.async_stream import AsyncEventStream
    from celery_app.client.batch import Batch
    from celery_app.client.event_stream import EventStream
    from celery_app.client.submission import OnInvalid

#: Seconds of silence after which `stream_from` gives up a job of which it does not know the lane: the longest deadline
#: of any lane that has one.
SILENCE = 300.0


class Client:
    """What a web app calls. Every method may be called from any thread, and imports what it needs on first use.

    `params` are the Messages API's: ``model``, ``max_tokens``, ``messages``, …

    All raise `InvalidRequest` for a bad parameter, `UnknownLane`, `LaneFull` if the lane has no room within its
    ``submit_wait``, and `BrokerUnreachable` within 3 s if no broker answers.
    """

    def __init__(self, app: Any = None) -> None:
        """Take a Celery application with lanes; None: the process's own, looked up at each call."""
        self._app = app

    @property
    def app(self) -> Any:
        """The Celery application, configured: before, it would have no result backend."""
        from celery import current_app

        from celery_app.settings import settings_of

        app = self._app or current_app._get_current_object()  # noqa: SLF001 - the proxy is bound to a thread
        settings_of(app)
        return app

    def submit(self, lane: str = "normal", **params: Any) -> AsyncResult:
        """Submit a call; its result is the message as a dict."""
        from celery_app.client.sending import CREATE, lane_of, send

        return send(self.app, CREATE, lane_of(self.app, lane), params)

    def submit_many(
        self,
        items: Iterable[Any],
        lane: str = "batch",
        *,
        on_invalid: OnInvalid = "stop",
        progress: Callable[[Batch], None] | None = None,
    ) -> Batch:
        """Submit many calls, and return once all are queued; a full lane is waited for, up to its ``submit_wait``.

        Nothing is queued if a list holds a bad item and `on_invalid` is ``stop``. Of any other iterable, the items
        before the bad one may be queued by then: the error's ``batch_id`` leads to them.

        Args:
            items: the parameters of each call, as dicts.
            lane: for all of them.
            on_invalid: ``stop`` raises at the first bad item, ``skip`` leaves it out and notes it in the batch.
            progress: called with the batch from time to time, and at the end.

        Raises:
            InvalidItem: naming the item's index and the first bad field.
        """
        from celery_app.client.sending import lane_of
        from celery_app.client.submission import submit_many

        return submit_many(self.app, items, lane_of(self.app, lane), on_invalid, progress)

    def load_batch(self, batch_id: str) -> Batch:
        """Return a batch that any process has submitted.

        Raises:
            UnknownBatch: there is none of that id.
        """
        from celery_app.client.batch import Batch

        return Batch.load(batch_id, self.app)

    def ask(self, lane: str = "critical", **params: Any) -> Message:
        """Submit a call and wait for its message, no longer than the lane's deadline.

        Raises:
            DeadlineExceeded: there is no answer; the job is cancelled.
            LanesError: the job has failed; what of it says how.
        """
        from celery_app.client.asking import ask

        return ask(self.app, lane, params)

    def stream(self, lane: str = "critical", *, cancel_on_close: bool = False, **params: Any) -> EventStream:
        """Submit a call whose answer is read while it is produced; returns once the job is queued."""
        from celery_app.client.event_stream import EventStream
        from celery_app.client.sending import STREAM, lane_of, send

        of = lane_of(self.app, lane)
        result = send(self.app, STREAM, of, params)
        return EventStream(self.app, result.id, patience=of.deadline, cancel_on_close=cancel_on_close, lane=of.name)

    def stream_from(self, task_id: str, last_event_id: str | None = None) -> EventStream:
        """Read on in the stream of a job that any process has submitted, behind an event that was read before."""
        from celery_app.client.event_stream import EventStream

        return EventStream(self.app, task_id, last_event_id, patience=SILENCE)

    def cancel(self, job: Any) -> bool:
        """Cancel a job: queued, it will never run; running, its call ends within 0.5 s. Its state becomes REVOKED.

        Args:
            job: its id, its `AsyncResult` or its stream.

        Returns:
            False if it had ended already.
        """
        from celery_app.client.cancelling import cancel

        return cancel(self.app, job)

    async def aask(self, lane: str = "critical", **params: Any) -> Message:
        """Do as `ask` does; a coroutine that is cancelled cancels its job."""
        from celery_app.client.async_asking import aask

        return await aask(self.app, lane, params)

    def astream(self, lane: str = "critical", *, cancel_on_close: bool = False, **params: Any) -> AsyncEventStream:
        """Do as `stream` does, for ``async for``; the job is sent with the first event that is waited for.

        ``await astream(…)`` sends it at once.
        """
        from celery_app.client.async_stream import AsyncEventStream
        from celery_app.client.sending import lane_of

        of = lane_of(self.app, lane)
        return AsyncEventStream(
            self.app, None, patience=of.deadline, cancel_on_close=cancel_on_close, call=(of, params)
        )

    def astream_from(self, task_id: str, last_event_id: str | None = None) -> AsyncEventStream:
        """Do as `stream_from` does, for ``async for``."""
        from celery_app.client.async_stream import AsyncEventStream

        return AsyncEventStream(self.app, task_id, last_event_id, patience=SILENCE)

    async def acancel(self, job: Any) -> bool:
        """Do as `cancel` does."""
        import asyncio

        from celery_app.client.cancelling import cancel

        return await asyncio.to_thread(cancel, self.app, job)
