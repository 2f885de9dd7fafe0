"""Where the results of lane tasks are: in the project's own result backend, or at the lanes' broker."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from contextvars import ContextVar
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from celery.app.backends import by_url

from celery_app.connections.addresses import NO_BACKEND
from celery_app.stand_in import stand_in

if TYPE_CHECKING:
    from collections.abc import Iterator

_CLASSES = "celery_app.results.backends"

#: Scheme -> backend: forms of a URL that our documentation shows and Celery does not know.
BACKENDS = {
    "sentinel": f"{_CLASSES}:SentinelBackend",
    "valkey": f"{_CLASSES}:ValkeyBackend",
    "valkeys": f"{_CLASSES}:ValkeyBackend",
}

#: The same for results that we keep ourselves.
LANE_BACKENDS = {
    "redis": f"{_CLASSES}:LaneBackend",
    "rediss": f"{_CLASSES}:LaneBackend",
    "sentinel": f"{_CLASSES}:LaneSentinelBackend",
    "valkey": f"{_CLASSES}:LaneBackend",
    "valkeys": f"{_CLASSES}:LaneBackend",
}

_sending_to_lane: ContextVar[bool] = ContextVar("sending_to_lane", default=False)


class LaneResults:
    """The result backend of an application's lane tasks.

    These tasks are called for their results. A project that has no result backend gets none for its own tasks.
    """

    def __init__(self, app: Any) -> None:
        """Make none yet: the project may still be about to choose one."""
        self._app = app
        self._local = threading.local()

    def backend(self) -> Any:
        """Return the backend for this thread.

        Raises:
            InvalidSettings: the project has none, and no broker where it could be.
        """
        standing_in = stand_in()
        if standing_in is not None:
            return standing_in.backend_of(self._app)
        if self._app.backend_cls or self._app.conf.result_backend not in NO_BACKEND:
            return self._app.backend
        return self.at_broker()

    def at_broker(self) -> Any:
        """Return a backend at the lanes' broker, one for each thread: Celery's are not made to be shared."""
        from celery_app.settings import settings_of  # pydantic is not wanted before the first job

        settings = settings_of(self._app)
        url = settings.result_backend
        at = (url, repr(self._app.conf.broker_transport_options))
        made = getattr(self._local, "made", None)
        if made is None or made[0] != at:
            made = self._local.made = (at, self.make(None if url == settings.broker_url else url))
        return made[1]

    def make(self, url: str | None) -> Any:
        """Make a backend at a Redis; None: at the lanes' broker."""
        if url is None:
            from celery_app.results.backends import BrokerBackend  # brings redis-py along

            return BrokerBackend(self._app)
        backend, url = by_url(url, SimpleNamespace(override_backends=LANE_BACKENDS))
        return backend(app=self._app, url=url)


def backend_of(app: Any) -> Any:
    """Return the result backend of an application's lane tasks, for this thread."""
    return app.lanes_results.backend()


@contextmanager
def unsubscribed(app: Any) -> Iterator[None]:
    """Keep Celery from subscribing to the result of the job that the block sends (``Backend.on_task_call``).

    That costs a command before each job is sent, and a web process that never fetches the result would never
    unsubscribe. `AsyncResult.get` subscribes by itself, and looks for a result that is there already. An application's
    other tasks are subscribed to as ever.
    """
    backend = app.backend  # each thread has its own
    if "on_task_call" not in vars(backend):
        subscribe = backend.on_task_call
        backend.on_task_call = lambda *args: {} if _sending_to_lane.get() else subscribe(*args)
    token = _sending_to_lane.set(True)
    try:
        yield
    finally:
        _sending_to_lane.reset(token)
