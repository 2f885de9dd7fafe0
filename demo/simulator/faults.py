"""Fault: one way in which a call can go wrong."""

from __future__ import annotations

import difflib
from enum import StrEnum
from typing import NamedTuple


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
    CREDIT_USED_UP = "credit_used_up"  # 400 whose words alone say so
    MODEL_FORBIDDEN = "model_forbidden"  # 403 for a model that the key may not call
    # Only by request, too: they are not worse than others, but worse understood.
    RESET = "reset"  # the connection is reset; a stream's after half of the tokens
    STREAM_RATE_LIMITED = "stream_rate_limited"  # a rate_limit_error event after half of the tokens
    STREAM_API_ERROR = "stream_api_error"  # likewise an api_error
    STREAM_UNKNOWN_ERROR = "stream_unknown_error"  # likewise an error of a type that nobody knows yet
    # What comes behind message_stop; the message is complete, and paid for.
    DONE_BEHIND = "done_behind"  # `data: [DONE]`, as OpenAI's streams end
    USAGE_BEHIND = "usage_behind"  # usage in an object that is no event
    NULL_BEHIND = "null_behind"  # `data: null`
    RESET_BEHIND = "reset_behind"  # the connection is reset
    OPEN_BEHIND = "open_behind"  # nothing: the connection stays open
    # Refusals that repeat what they refuse.
    ECHO_INPUT = "echo_input"  # 422 with the whole request in it, as FastAPI makes them
    ECHO_PROMPT = "echo_prompt"  # 400 whose message repeats the prompt
    ECHO_PROMPT_AGAIN = "echo_prompt_again"  # 500 with the same body
    ECHO_KEY = "echo_key"  # 401 whose message repeats the API key


MID_STREAM = frozenset(
    {
        Fault.DROP_MID_STREAM,
        Fault.STREAM_OVERLOADED,
        Fault.TRUNCATED,
        Fault.STREAM_RATE_LIMITED,
        Fault.STREAM_API_ERROR,
        Fault.STREAM_UNKNOWN_ERROR,
    }
)
ECHOES = frozenset({Fault.ECHO_INPUT, Fault.ECHO_PROMPT, Fault.ECHO_PROMPT_AGAIN, Fault.ECHO_KEY})
BY_RATE = tuple(Fault)[: tuple(Fault).index(Fault.SPEND_LIMIT)]
# A request without `x-simulate` can carry its fault here: SDK users cannot always set headers.
USER_ID_PREFIX = "simulate:"
_STATUSES = range(300, 600)
# Behind a status, what its retry-after says: "503;retry-after=2".
_RETRY_AFTER = ";retry-after="


class Status(NamedTuple):
    """An answer with a status that is no success.

    Attributes:
        number: 300 to 599; one of a redirection leads nowhere.
        retry_after: what the header says, None for what is usual.
    """

    number: int
    retry_after: str | None = None

    def __str__(self) -> str:
        """Give what the request asked for."""
        return str(self.number) if self.retry_after is None else f"{self.number}{_RETRY_AFTER}{self.retry_after}"


def named(name: str) -> Fault | Status:
    """Give the fault of a name, or the status of a number such as "409" or "503;retry-after=2".

    Raises:
        ValueError: no fault has this name; the nearest that exists is told.
    """
    number, separator, retry_after = name.partition(_RETRY_AFTER)
    if number.isdecimal() and int(number) in _STATUSES:
        return Status(int(number), retry_after if separator else None)
    if name in set(Fault):
        return Fault(name)
    nearest = difflib.get_close_matches(name, list(Fault), n=1, cutoff=0.0)[0]
    raise ValueError(f"x-simulate: there is no fault {name}; did you mean {nearest}?")
