"""What one proof needs of a broker: a database, another one for the event log, an application, workers."""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from pydantic import SecretStr
from redis import Redis

from celery_app import LANES, create_app
from celery_app.settings import Settings
from kit.event_log import EventLog
from kit.script_client import ScriptClient
from kit.worker import Worker
from tests.conftest import close_backend, close_pool


def _disconnect(app: Any) -> None:
    """Close an application's connections; kombu shares the pool between applications, so it has to stay."""
    close_backend(app)
    close_pool(app)


class Broker:
    """A context manager: it empties its databases, and leaves neither workers nor connections behind."""

    def __init__(self, folder: Path, broker_url: str, event_log_url: str | None = None) -> None:
        """Work at `broker_url`; the event log is in the next database unless it has a server of its own."""
        root, _, db = broker_url.rpartition("/")
        self.folder = folder
        self.broker_url = broker_url
        self.event_log_url = event_log_url or f"{root}/{int(db) + 1}"
        self.client = Redis.from_url(broker_url)
        self.event_log = EventLog(self.event_log_url)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self.client.flushdb()
        self.event_log.client.flushdb()
        self.app = self.make_app()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nothing running."""
        self._stack.close()
        self.client.close()
        self.event_log.client.close()

    def make_app(self, options: dict[str, Any] | None = None, **lane_fields: Any) -> Any:
        """Return an application with lanes here; `lane_fields` override a field in every lane."""
        settings = Settings(
            broker_url=self.broker_url,
            result_backend=self.broker_url,
            api_keys={lane.name: SecretStr("test-key") for lane in LANES},
            lanes=tuple(replace(lane, **lane_fields) for lane in LANES),
        )
        app = create_app(settings)
        app.conf.broker_transport_options = options or {}
        self._stack.callback(app.close)
        # Celery only forgets its pool, with all connections in it.
        self._stack.callback(_disconnect, app)
        return app

    def worker(self, name: str = "w", **options: Any) -> Worker:
        """Return a worker, ready; the broker ends it if nobody else does."""
        worker = Worker(self.folder, name, broker_url=self.broker_url, event_log_url=self.event_log_url, **options)
        return self._stack.enter_context(worker)

    def workers(self, *names: str, **options: Any) -> list[Worker]:
        """Return several workers, started at the same time."""
        return [worker.wait_until_ready() for worker in [self.starting(name, **options) for name in names]]

    def starting(self, name: str, **options: Any) -> Worker:
        """Return a worker that nobody waits for; the broker ends it if nobody else does."""
        worker = Worker(self.folder, name, broker_url=self.broker_url, event_log_url=self.event_log_url, **options)
        self._stack.callback(worker.kill)
        return worker

    def send(self, task: str, *args: Any, queue: str = "batch", **options: Any) -> Any:
        """Send one job."""
        return self.app.send_task(task, args, queue=queue, **options)

    def scripts(self) -> ScriptClient:
        """Return a client that runs the scripts here."""
        return ScriptClient(self.client)

    def in_flight(self) -> int:
        """Return how many jobs workers hold."""
        return int(self.client.zcard("lanes:leases"))
