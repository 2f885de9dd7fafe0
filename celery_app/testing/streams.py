"""The streams of calls that were answered in process, in the form in which clients read them from Redis."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from celery_app.errors import error_event
from celery_app.keys import ATTEMPT, EVENTS, FIRST, MESSAGE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Entry = tuple[bytes, Mapping[bytes, bytes]]

#: Redis' id of the one entry that a stream has here.
_ENTRY = (1, 0)


class Streams:
    """The stream of each job: one entry, with all of its events."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def end(self, task_id: str, events: Iterable[dict[str, Any]], message: Mapping[str, Any] | None) -> None:
        """Keep the events of a job; without a message, of one that failed."""
        fields = {
            ATTEMPT: b"in-process",
            FIRST: b"0",
            EVENTS: b"\n".join(json.dumps(event).encode() for event in events),
            MESSAGE: b"" if message is None else json.dumps(message).encode(),
        }
        self._entries[task_id] = "-".join(map(str, _ENTRY)).encode(), fields

    def fail(self, task_id: str, error: Exception) -> None:
        """Keep the one event of a job that failed."""
        self.end(task_id, [error_event(error)], None)

    def entries_after(self, task_id: str, after: str) -> list[Entry]:
        """Return the entries behind one of them: ``0``, or ``<ms>-<sequence>``."""
        ms, _, sequence = after.partition("-")
        behind = (int(ms), int(sequence or 0)) < _ENTRY
        return [self._entries[task_id]] if behind and task_id in self._entries else []
