"""A reader gets every event as it was written, also those that nobody knows."""

import json

from celery_app.client.entries import EntryReader
from celery_app.keys import ATTEMPT, EVENTS, FIRST, MESSAGE


def test_unknown_events_are_given_as_they_are():
    """Of a type, or with fields, that tomorrow's API has."""
    events = [
        {"type": "message_start", "message": {"content": []}},
        {"type": "hologram", "deep": [{"a": None}], "text": "a\nb\u2028c"},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "hologram_delta", "light": [1]}},
        {"type": "message_stop", "new": {}},
    ]
    fields = {
        ATTEMPT: b"one",
        FIRST: b"0",
        EVENTS: b"\n".join(json.dumps(event).encode() for event in events),
        MESSAGE: b'{"type": "message"}',
    }
    reader = EntryReader("job")

    assert list(reader.take(b"1-0", fields)) == events
    assert (reader.ended, reader.message) == (True, {"type": "message"})
