"""A job in a worker, as logs, events and ``celery inspect`` show it."""

from __future__ import annotations

import logging
import re
from typing import Any

from celery.worker.request import Request

from celery_app.broker.claims import CANCELLED, queue_of
from celery_app.jobs.descriptions import HIDDEN, described

#: Names of the tasks whose arguments this process must not show.
_hiding: set[str] = set()


class LaneRequest(Request):
    """Celery's request for a job of a `LaneTask`; ``LaneTask.Request`` names it.

    Whatever its producer said of the arguments, one without our code, or nothing: they are described here.
    """

    _ends_in_slot = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        shown = described(self._app, self._type, self._args, self._kwargs, in_lane=False)
        self._is_described = shown is not None
        if shown is not None:
            _hiding.add(self._type)
            self._argsrepr, self._kwargsrepr = shown
            self._request_dict["argsrepr"], self._request_dict["kwargsrepr"] = shown

    def revoked(self) -> bool:
        """Say whether Celery is to leave the job out, as it does with what was revoked or has expired.

        A job in a lane goes on to its slot and ends there as a cancelled one: with the patience for its result that
        this thread must not have, and told to its batch and to whoever waits.
        """
        left_out = super().revoked()
        return bool(left_out) and not self._ends_in_slot

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        if terminated or not getattr(self._task, "in_lanes", False):
            super()._announce_revoked(reason, terminated, signum, expired)
            return
        self._ends_in_slot = True
        self._request_dict.setdefault("properties", {})[CANCELLED] = True

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """Kill nothing for a job in a lane: it is cancelled, and its process may have other calls."""
        if not getattr(self._task, "in_lanes", False):
            super().terminate(pool, signal)

    def send_event(self, type: str, **fields: Any) -> None:  # noqa: A002 - Celery's name
        """Say with each event in which queue the job was: Flower may have missed its submission, or heard of none."""
        super().send_event(type, queue=queue_of(self.message.properties, self.delivery_info), **fields)

    def info(self, safe: bool = False) -> dict[str, Any]:
        """Return what ``celery inspect active`` and its like tell of the job."""
        told: dict[str, Any] = super().info(safe=safe or self._is_described)
        return told


class _HideInPool(logging.Filter):
    """At DEBUG, Celery's pools write each job's message into the log: ``TaskPool: Apply …``."""

    def filter(self, record: logging.LogRecord) -> bool:
        if str(record.msg).startswith("TaskPool: Apply") and isinstance(record.args, tuple) and len(record.args) > 1:
            target, *rest = record.args
            found = re.match(r"\('([^']*)'", str(rest[0]))
            if found and found[1] in _hiding:
                record.args = (target, f"({found[1]!r}, {HIDDEN}", *([HIDDEN] * (len(rest) - 1)))
        return True


logging.getLogger("celery.pool").addFilter(_HideInPool())
