"""Call and CallLog: the independent witness of what reached the API and what it answered."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass, fields
from operator import attrgetter, itemgetter
from typing import Any

# A long benchmark; about 40 MB.
CALLS_KEPT = 100_000
# Under this name the summary counts calls that ended without any status line.
NO_ANSWER = "no_answer"


@dataclass(slots=True)
class Call:
    """One request for a message.

    Attributes:
        request_id: as in the response header.
        arrived: seconds since the epoch.
        status: of the answer; None while there is none (and for good, if the connection was dropped).
        model: that was asked.
        user_id: of the request's metadata.
        key: the last 4 characters of the API key, never all of it.
        stream: whether a stream was asked for.
        input_tokens: of the prompt, cache creation included, cache reads not.
        output_tokens: produced so far.
        fault: what was done to the call on purpose.
        closed_by_client: seconds since the epoch when the client hung up before the end.
        seconds: from arrival to the end; None while it goes on.
    """

    request_id: str
    arrived: float
    status: int | None = None
    model: str | None = None
    user_id: str | None = None
    key: str | None = None
    stream: bool = False
    input_tokens: int = 0
    output_tokens: int = 0
    fault: str | None = None
    closed_by_client: float | None = None
    seconds: float | None = None


_FIELDS = tuple(field.name for field in fields(Call))
_ARRIVED = _FIELDS.index("arrived")
_values = attrgetter(*_FIELDS)


class CallLog:
    """The last calls in order of arrival, and counts of all of them."""

    def __init__(self, kept: int = CALLS_KEPT) -> None:
        """Start empty; `kept` calls are remembered, all are counted."""
        self._going_on: dict[str, Call] = {}
        # Plain tuples of plain values are left alone by the garbage collector; 100,000 objects would hold up
        # every stream for 30 ms whenever it looks through all of them.
        self._ended: deque[tuple[Any, ...]] = deque(maxlen=kept)
        self._open_streams = 0
        self.clear()

    def clear(self) -> None:
        """Forget all calls that have ended; those that go on stay."""
        self._ended.clear()
        self._statuses: Counter[str] = Counter()
        self._closed_by_client = 0
        self._max_in_flight = len(self._going_on)
        self._max_open_streams = self._open_streams

    def begin(self, request_id: str) -> Call:
        """Note the arrival of a call."""
        call = Call(request_id, time.time())
        self._going_on[request_id] = call
        self._max_in_flight = max(self._max_in_flight, len(self._going_on))
        return call

    def end(self, call: Call) -> None:
        """Note that a call has got all that it will get."""
        call.seconds = round(time.time() - call.arrived, 6)
        self._ended.append(_values(self._going_on.pop(call.request_id)))
        self._statuses[NO_ANSWER if call.status is None else str(call.status)] += 1

    def open_stream(self) -> None:
        """Note that a stream begins."""
        self._open_streams += 1
        self._max_open_streams = max(self._max_open_streams, self._open_streams)

    def close_stream(self) -> None:
        """Note that a stream ends, one way or another."""
        self._open_streams -= 1

    def hung_up(self, call: Call) -> None:
        """Note that the client closed the connection before the end."""
        if call.seconds is not None:
            return  # all was produced, and only the network still had some of it
        call.closed_by_client = time.time()
        self._closed_by_client += 1

    def summary(self) -> dict[str, Any]:
        """Give counts per status and the greatest concurrency since the last clear."""
        return {
            "statuses": dict(self._statuses),
            "total": self._statuses.total(),
            "closed_by_client": self._closed_by_client,
            "in_flight": len(self._going_on),
            "max_in_flight": self._max_in_flight,
            "open_streams": self._open_streams,
            "max_open_streams": self._max_open_streams,
        }

    def calls(self) -> list[dict[str, Any]]:
        """Give the calls that are remembered, in order of arrival, each as a JSON object."""
        records = [*self._ended, *map(_values, self._going_on.values())]
        return [dict(zip(_FIELDS, record, strict=True)) for record in sorted(records, key=itemgetter(_ARRIVED))]
