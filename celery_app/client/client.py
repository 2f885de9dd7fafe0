"""The client of one Celery application; `celery_app.client` has one for the process's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery_app.client.batches import Batches

if TYPE_CHECKING:
    from anthropic.types import Message
    from celery.result import AsyncResult

    from celery_app.client.async_stream import AsyncEventStream
    from celery_app.client.event_stream import EventStream
    from celery_app.metrics.explanation import Explanation

#: Seconds of silence after which `stream_from` gives up a job of which it does not know the lane: the longest deadline
#: of any lane that has one.
SILENCE = 300.0


class Client(Batches):
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
        from celery_app.client.application import configured

        return configured(self._app)

    def submit(
        self,
        lane: str = "normal",
        *,
        wait: float | None = None,
        tenant: str | None = None,
        unique: str | None = None,
        unique_for: float | None = None,
        **params: Any,
    ) -> AsyncResult:
        """Submit a call; its result is the message as a dict.

        Args:
            lane: where to.
            wait: seconds to wait for room in a full lane; None: the lane's ``submit_wait``.
            tenant: whose job it is: the tenants of a lane take turns. So with `ask` and `stream`.
            unique: while a job of this tenant and name is queued or runs, its result comes back and nothing is queued.
            unique_for: seconds for which that lasts after the job's end, at most a year.
            params: of the Messages API.
        """
        from celery_app.client.sending import CREATE_TASK, lane_of, send
        from celery_app.jobs.options import refuse_options

        refuse_options(params, "submit")
        names: dict[str, Any] = {"tenant": tenant, "unique": unique, "unique_for": unique_for}
        return send(self.app, CREATE_TASK, lane_of(self.app, lane), params, wait=wait, **names)

    def ask(
        self, lane: str = "critical", *, tenant: str | None = None, unique: str | None = None, **params: Any
    ) -> Message:
        """Submit a call and wait for its message, no longer than the lane's deadline.

        Raises:
            DeadlineExceeded: there is no answer; the job is cancelled.
            LanesError: the job has failed; what of it says how.
            WouldBlock: within a task, where waiting may stop all slots.
        """
        from celery_app.client.asking import ask
        from celery_app.jobs.options import refuse_options

        refuse_options(params, "ask")
        return ask(self.app, lane, params, {"tenant": tenant, "unique": unique})

    def stream(
        self,
        lane: str = "critical",
        *,
        cancel_on_close: bool = False,
        tenant: str | None = None,
        unique: str | None = None,
        **params: Any,
    ) -> EventStream:
        """Submit a call whose answer is read while it is produced; returns once the job is queued.

        Raises:
            WouldBlock: within a task, where reading may stop all slots; `tasks.stream_message` is for others to read.
        """
        from celery_app.client.event_stream import EventStream
        from celery_app.client.sending import lane_of, send
        from celery_app.jobs.options import refuse_options
        from celery_app.keys import STREAM_TASK
        from celery_app.stand_in import refuse_to_wait

        refuse_options(params, "stream")
        refuse_to_wait("stream()")
        of = lane_of(self.app, lane)
        result = send(self.app, STREAM_TASK, of, params, tenant=tenant, unique=unique)
        return EventStream(self.app, result.id, patience=of.deadline, cancel_on_close=cancel_on_close, lane=of.name)

    def stream_from(self, task_id: str, last_event_id: str | None = None) -> EventStream:
        """Read on in the stream of a job that any process has submitted, behind an event that was read before.

        After 300 s without an event it is `DeadlineExceeded`; the job, which may be far back in its lane, goes on. An
        id that nobody has submitted to be streamed is an `UnknownJob` once 5 s have passed: an exception for whoever
        reads the events, an ``error`` event in `EventStream.sse`.
        """
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

    def explain(self, job: Any) -> Explanation:
        """Say why a job waits: ``{"state", "lane", "position", "of", "waiting_for", "expected_s"}``.

        Args:
            job: its id, its `AsyncResult` or its stream.
        """
        from celery_app.metrics.explanation import explain

        return explain(self.app, job)

    async def aask(
        self, lane: str = "critical", *, tenant: str | None = None, unique: str | None = None, **params: Any
    ) -> Message:
        """Do as `ask` does; a coroutine that is cancelled cancels its job."""
        from celery_app.client.async_asking import aask
        from celery_app.jobs.options import refuse_options

        refuse_options(params, "aask")
        return await aask(self.app, lane, params, {"tenant": tenant, "unique": unique})

    def astream(
        self,
        lane: str = "critical",
        *,
        cancel_on_close: bool = False,
        tenant: str | None = None,
        unique: str | None = None,
        **params: Any,
    ) -> AsyncEventStream:
        """Do as `stream` does, for ``async for``; the job is sent with the first event that is waited for.

        ``await astream(…)`` sends it at once.
        """
        from celery_app.client.async_stream import AsyncEventStream
        from celery_app.client.sending import lane_of
        from celery_app.jobs.options import refuse_options
        from celery_app.stand_in import refuse_to_wait

        refuse_options(params, "astream")
        refuse_to_wait("astream()")
        of = lane_of(self.app, lane)
        return AsyncEventStream(
            self.app,
            None,
            patience=of.deadline,
            cancel_on_close=cancel_on_close,
            call=(of, params),
            names={"tenant": tenant, "unique": unique},
        )

    def astream_from(self, task_id: str, last_event_id: str | None = None) -> AsyncEventStream:
        """Do as `stream_from` does, for ``async for``."""
        from celery_app.client.async_stream import AsyncEventStream

        return AsyncEventStream(self.app, task_id, last_event_id, patience=SILENCE)

    async def acancel(self, job: Any) -> bool:
        """Do as `cancel` does."""
        import asyncio

        return await asyncio.to_thread(self.cancel, job)
