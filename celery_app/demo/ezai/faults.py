"""Fault: one way in which a call can go wrong."""

from __future__ import annotations

import difflib
from enum import StrEnum


class Fault(StrEnum):
    """What can be done to a call, by rate (`Behaviour.<fault>_rate`) or by request (`x-simulate: <fault>`).

    The mid-stream faults have no rate for calls that do not stream; forced upon such a call, the overload
    is a plain 529, and the other two cut the body short.
    """

    SERVER_ERROR = "server_error"  # 500 api_error, after the latency
    OVERLOADED = "overloaded"  # 529 overloaded_error, at once
    UNAVAILABLE = "unavailable"  # 503 with a gateway's HTML page, at once
    DROP = "drop"  # the connection closes without an answer
    HANG = "hang"  # the call is accepted and never answered
    DRIP = "drip"  # the answer comes byte by byte, so that no single read ever times out
    HTML = "html"  # 200 with an HTML page
    BROKEN_JSON = "broken_json"  # 200 whose JSON (in a stream: whose first delta's JSON) is cut in half
    DROP_MID_STREAM = "drop_mid_stream"  # the connection closes after half of the tokens
    STREAM_OVERLOADED = "stream_overloaded"  # an overloaded_error event after half of the tokens
    TRUNCATED = "truncated"  # the stream ends in good order, but without message_stop
    # Only by request: a spend limit is a switch of Behaviour, a rate limit comes from Limits.
    SPEND_LIMIT = "spend_limit"
    RATE_LIMITED = "rate_limited"


MID_STREAM = frozenset({Fault.DROP_MID_STREAM, Fault.STREAM_OVERLOADED, Fault.TRUNCATED})
BY_RATE = tuple(fault for fault in Fault if fault not in {Fault.SPEND_LIMIT, Fault.RATE_LIMITED})
# A request without `x-simulate` can carry its fault here: SDK users cannot always set headers.
USER_ID_PREFIX = "simulate:"
_STATUSES = range(400, 600)


def named(name: str) -> Fault | int:
    """Give the fault of a name, or the status of a number such as "409".

    Raises:
        ValueError: no fault has this name; the nearest that exists is told.
    """
    if name.isdecimal() and int(name) in _STATUSES:
        return int(name)
    if name in set(Fault):
        return Fault(name)
    nearest = difflib.get_close_matches(name, list(Fault), n=1, cutoff=0.0)[0]
    raise ValueError(f"x-simulate: there is no fault {name}; did you mean {nearest}?")
