"""Whether anybody knows a job whose stream is silent: its id comes from a browser, so it may be made up."""

from __future__ import annotations

import time
from typing import Any

from celery_app.connections.redis_client import broker_errors, redis_client, stream_key
from celery_app.errors import UnknownJob
from celery_app.stand_in import stand_in

#: Seconds for which an id may be unknown: some give an id to a page just before they submit its job.
UNKNOWN_FOR = 5.0


class Doubt:
    """The doubt of one reader whether its job exists; it is over once the job was seen."""

    def __init__(self, app: Any, task_id: str) -> None:
        self._app, self._task_id = app, task_id
        self._at = time.monotonic() + UNKNOWN_FOR

    def check(self) -> None:
        """Look for the job's stream, once in `UNKNOWN_FOR` if it is there: its submission made it.

        Raises:
            UnknownJob: there is none.
            BrokerUnreachable: no broker answers.
        """
        if stand_in() is None and time.monotonic() < self._at:
            return
        if not self._is_known():
            raise UnknownJob(task_id=self._task_id)
        self._at = float("inf")

    def _is_known(self) -> bool:
        standing_in = stand_in()
        if standing_in is not None:
            return standing_in.has_job(self._task_id)
        with broker_errors(self._app):
            return bool(redis_client(self._app).exists(stream_key(self._app, self._task_id)))
