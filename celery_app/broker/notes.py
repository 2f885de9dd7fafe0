"""What a job that goes back to its lane takes with it, beside the number of its retries: whole numbers by name."""

from __future__ import annotations

from typing import Any

#: Calls of the job that were not answered in time.
TIMEOUTS = "lanes_timeouts"

#: When the last call of the job left that the API refused for now (429, 529): µs since the epoch, by Redis' clock.
REFUSED_AT = "lanes_refused_at"

NOTES = (TIMEOUTS, REFUSED_AT)


def take_notes(message: dict[str, Any]) -> None:
    """Put the notes of a delivered message where its task finds them: among the headers, in place of a producer's."""
    info = message["properties"].get("delivery_info") or {}
    for name in NOTES:
        message["headers"].pop(name, None)
        noted = info.pop(name, None)
        if type(noted) is int:
            message["headers"][name] = noted
