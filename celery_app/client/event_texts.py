"""Server-sent events, and the comments that stand for silence."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from celery_app.errors import BrokerUnreachable, LanesError, error_event

if TYPE_CHECKING:
    from celery_app.client.entries import Event

#: Seconds of silence after which a reader that has left is noticed: proxies cut a connection that is silent for 30 or
#: 60 s, and a call that nobody reads costs tokens.
SILENCE = 15.0

#: What readers of server-sent events pass over.
COMMENT = ": keep-alive\n\n"

#: What a reader is told of a broker that is away: where it is, is none of its business.
AWAY = "The queue does not answer; try again."


class EventTexts:
    """Those of one stream: the comments depend on when it was heard of last."""

    def __init__(self, heartbeat: float) -> None:
        """Begin to count silence.

        Raises:
            ValueError: `heartbeat` is not above 0.
        """
        if not heartbeat > 0:
            raise ValueError(f"the heartbeat has to be above 0 s, not {heartbeat}")
        self._silence = heartbeat / 2
        self._heard_at = time.monotonic()

    @property
    def block_ms(self) -> int:
        """Milliseconds for which an event may be waited for at once."""
        return max(1, round(self._silence * 1000 / 2))

    def text_of(self, event: Event | None, event_id: str | None, *, named: bool) -> str:
        """Return what to write for an event; for None, that there was none, a comment or nothing."""
        if event is not None:
            self._heard_at = time.monotonic()
            return _text(event, event_id, named=named)
        if time.monotonic() - self._heard_at < self._silence:
            return ""
        self._heard_at = time.monotonic()
        return COMMENT

    def error_text(self, error: LanesError, *, named: bool) -> str:
        """Return what to write for an error; the headers are out already."""
        event = error_event(error)
        if isinstance(error, BrokerUnreachable):
            event["error"]["message"] = AWAY
        return _text(event, None, named=named)


def _text(event: Event, event_id: str | None, *, named: bool) -> str:
    # Without an id of its own, a reader keeps the one before, and comes back behind it.
    fields = {"id": event_id, "event": event["type"] if named else None, "data": json.dumps(event)}
    return "".join(f"{name}: {value}\n" for name, value in fields.items() if value) + "\n"
