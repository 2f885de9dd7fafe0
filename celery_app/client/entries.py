"""From the entries of a job's Redis stream to events, however they are fetched."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, TypeAlias

from celery_app.errors import InvalidRequest, StreamExpired
from celery_app.keys import ATTEMPT, EVENTS, FIRST, MESSAGE, STREAM_KEPT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Event: TypeAlias = dict[str, Any]

#: What a reader gets when a broken answer begins anew: it drops what it has.
RESTART: Event = {"type": "restart"}

#: ``<ms>-<sequence>`` of a stream's entry, and the number of the event within its attempt.
_EVENT_ID = re.compile(r"(\d{1,20})-(\d{1,20})-(\d{1,20})")

#: The greatest sequence number that an entry's id may have.
_LAST_SEQUENCE = 2**64 - 1


class EntryReader:
    """Follows one job's stream: each event once, in order, of one attempt at a time.

    Attributes:
        after: id of the entry behind which to read on.
        last_event_id: of the event that was given last; None before the first.
        ended: whether there will be no more.
        message: the whole message, once a stream has ended well.
    """

    def __init__(self, task_id: str, last_event_id: str | None = None) -> None:
        """Begin at the beginning, or behind an event that was read before.

        Raises:
            InvalidRequest: `last_event_id` is none of ours.
        """
        self.after = "0"
        self.last_event_id = last_event_id or None
        self.ended = False
        self.message: dict[str, Any] | None = None
        self._task_id = task_id
        self._attempt: bytes | None = None
        self._next = 0
        self._resumed_at: str | None = None
        if last_event_id:
            self._resume(last_event_id)

    def take(self, entry_id: bytes, fields: Mapping[bytes, bytes]) -> Iterator[Event]:
        """Give the events of one entry that are new to the reader.

        Raises:
            StreamExpired: events before these are missing.
        """
        self.after = entry_id.decode()
        number, lines = int(fields[FIRST]), fields[EVENTS].split(b"\n") if fields[EVENTS] else []
        if fields[ATTEMPT] != self._attempt:
            if self.after == self._resumed_at:
                self._attempt = fields[ATTEMPT]
            elif number > 0 and self._attempt is not None:
                return  # of an attempt whose job was given to somebody else meanwhile
            else:
                yield from self._begin(fields[ATTEMPT], lines)
        if number > self._next:
            raise StreamExpired(task_id=self._task_id, kept=STREAM_KEPT)
        for at, line in enumerate(lines[self._next - number :], self._next):
            self._next, self.last_event_id = at + 1, f"{self.after}-{at}"
            yield json.loads(line)
        if MESSAGE in fields:
            self.ended = True
            self.message = json.loads(fields[MESSAGE]) if fields[MESSAGE] else None

    def end(self, ended: Event | StreamExpired) -> Event:
        """Give the last event, for a job that has ended and whose stream does not say so.

        Raises:
            StreamExpired: if that is what there is to say.
        """
        self.ended = True
        if isinstance(ended, StreamExpired):
            raise ended
        return ended

    def _begin(self, attempt: bytes, lines: list[bytes]) -> Iterator[Event]:
        """Follow another attempt from its first event on; its reader may have parts of the one before."""
        has_some = self.last_event_id is not None
        self._attempt, self._next = attempt, 0
        if has_some and attempt and lines and json.loads(lines[0]) != RESTART:
            yield dict(RESTART)

    def _resume(self, last_event_id: str) -> None:
        """Read the entry of that event again: it may have more events, and it says whose attempt it was."""
        match = _EVENT_ID.fullmatch(last_event_id)
        if match is None:
            raise InvalidRequest(path="last_event_id", problem="is not the id of an event of a stream")
        ms, sequence, number = map(int, match.groups())
        self._resumed_at, self._next = f"{ms}-{sequence}", number + 1
        if sequence > 0:
            self.after = f"{ms}-{sequence - 1}"
        elif ms > 0:
            self.after = f"{ms - 1}-{_LAST_SEQUENCE}"


def entries_of(reply: Any) -> list[tuple[bytes, Mapping[bytes, bytes]]]:
    """Return the entries in redis-py's reply to XREAD of one stream, by either protocol version."""
    if not reply:
        return []
    if isinstance(reply, dict):
        (batches,) = reply.values()
        return [entry for batch in batches for entry in batch]
    ((_, entries),) = reply
    return list(entries)
