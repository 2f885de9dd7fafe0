"""What can go wrong with a call: by request (`x-simulate: <name>`), and some of it by rate (`Behaviour`)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tornado.web import HTTPError

if TYPE_CHECKING:
    from collections.abc import Callable

Json = dict[str, Any]

JSON_TYPE, HTML_TYPE = "application/json", "text/html"
# `error.type` of each status (platform.claude.com, errors); of any other it is api_error.
TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
# Behind a status, what its retry-after says: "503;retry-after=2".
RETRY_AFTER = ";retry-after="

# What comes in the place of the rest of a stream, after half of its tokens.
STREAM_ERRORS = {
    "stream_overloaded": {"type": "overloaded_error", "message": "Overloaded"},
    "stream_rate_limited": {"type": "rate_limit_error", "message": "Too many tokens"},
    "stream_api_error": {"type": "api_error", "message": "Internal server error"},
    "stream_unknown_error": {"type": "moon_phase_error", "message": "Wrong phase"},  # that nobody knows yet
}
# What comes behind message_stop, when the message is complete and paid for.
BEHIND = {
    "done_behind": b"data: [DONE]\n\n",  # as OpenAI's streams end
    "usage_behind": b'data: {"usage": {"prompt_tokens": 3, "completion_tokens": 5}}\n\n',  # no event
    "null_behind": b"data: null\n\n",
    "reset_behind": b"",  # the connection is reset
    "open_behind": b"",  # the connection stays open
}
# Faults of a stream. Asked for of a whole answer, the first cuts it short and an overload is a plain 529.
MID_STREAM = frozenset({"drop_mid_stream", "truncated", *STREAM_ERRORS})
# Those whose answer has no first byte, and those whose message is complete.
UNANSWERED = frozenset({"server_error", "hang", "drop", "html"})
WHOLE = frozenset({None, "drip", *BEHIND})
# Faults of a call that was admitted, after its latency.
FAULTS = {
    "server_error",  # 500 api_error
    "drop",  # the connection closes without an answer
    "reset",  # the connection is reset; a stream's after half of the tokens
    "hang",  # the call is accepted and never answered
    "drip",  # the answer comes byte by byte, so that no single read ever times out
    "html",  # 200 with an HTML page
    "broken_json",  # 200 whose JSON (in a stream: whose first delta's JSON) is cut in half
    *MID_STREAM,
    *BEHIND,
}


class SimulatedError(HTTPError):
    """The API refuses a call, or something in front of it does with a `raw` body of its own."""

    raw = b""
    content_type = JSON_TYPE

    def __init__(self, status: int, message: str, *, retry_after: Any = None, code: str | None = None) -> None:
        """Take what the error body says, `error.details.error_code` included, and the header if there is to be one."""
        super().__init__(status)
        self.message, self.retry_after, self.code = message, retry_after, code

    def body(self, request_id: str) -> bytes:
        """Give the body; the SDK finds `error_code` in `error.details`."""
        if self.raw:
            return self.raw
        error: Json = {"type": TYPES.get(self.status_code, "api_error"), "message": self.message}
        if self.code is not None:
            error["details"] = {"error_code": self.code}
        return json.dumps({"type": "error", "error": error, "request_id": request_id}).encode()


def page(title: str) -> bytes:
    """Give an HTML page for people."""
    return f"<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>\r\n".encode()


def rate_limited(limit: str, retry_after: int) -> SimulatedError:
    """Give the 429 of a used-up limit, such as "requests per minute"."""
    message = f"This request would exceed your organization's rate limit of {limit}. Please try again later."
    return SimulatedError(429, message, retry_after=retry_after)


def _gateway(status: int, body: bytes, content_type: str) -> SimulatedError:
    """Give what something in front of the API answers in its place."""
    error = SimulatedError(status, "")
    error.raw, error.content_type = body, content_type
    return error


def _echo_input(params: Json) -> bytes:
    """Repeat the whole request, as FastAPI does."""
    found = {"type": "extra_forbidden", "loc": ["body"], "msg": "Extra inputs", "input": params}
    return json.dumps({"detail": [found]}).encode()


# Refusals that never get as far as the limits, made of the request's JSON and the API key.
REFUSALS: dict[str, Callable[[Json, str], SimulatedError]] = {
    "overloaded": lambda *_: SimulatedError(529, "Overloaded"),
    "unavailable": lambda *_: _gateway(503, page("503 Service Temporarily Unavailable"), HTML_TYPE),
    "spend_limit": lambda *_: SimulatedError(
        429, "You have reached the monthly API usage threshold of your tier.", code="enforced_spend_limit_reached"
    ),
    # Only its words tell it from a wrong request.
    "credit_used_up": lambda *_: SimulatedError(
        400, "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing."
    ),
    "model_forbidden": lambda *_: SimulatedError(403, "Your API key does not have permission to use this model."),
    "echo_input": lambda params, _: _gateway(422, _echo_input(params), JSON_TYPE),
    "echo_prompt": lambda params, _: SimulatedError(400, f"cannot process {json.dumps(params['messages'])}"),
    "echo_prompt_again": lambda params, _: SimulatedError(500, f"cannot process {json.dumps(params['messages'])}"),
    "echo_key": lambda _, key: SimulatedError(401, f"Invalid token: {key}"),
}


def refusal(name: str, params: Json, key: str, *, streaming: bool) -> SimulatedError | None:
    """Give the refusal of a name or of a status such as "503;retry-after=2"; None for a fault that comes later."""
    if name == "stream_overloaded" and not streaming:
        name = "overloaded"
    if name in REFUSALS:
        return REFUSALS[name](params, key)
    if name in FAULTS:
        return None
    number, separator, retry_after = name.partition(RETRY_AFTER)
    if number.isdecimal() and 300 <= int(number) < 600:
        usual = 1 if number == "429" else None
        return SimulatedError(int(number), f"Simulated {number}", retry_after=retry_after if separator else usual)
    return SimulatedError(400, f"x-simulate: no fault {name}; there are {', '.join(sorted({*REFUSALS, *FAULTS}))}")
