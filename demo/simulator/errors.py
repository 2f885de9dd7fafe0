"""Error bodies of the Messages API."""

from __future__ import annotations

import json
from typing import Any

from demo.simulator.faults import Fault
from demo.simulator.pages import HTML_TYPE, page

# `error.type` of each status (platform.claude.com, errors).
TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    500: "api_error",
    502: "api_error",
    503: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
OVERLOADED = 529

JSON_TYPE = "application/json"


class ApiError(Exception):
    """The API refuses a call.

    Attributes:
        status: the HTTP status, one of TYPES.
        message: what `error.message` says.
        retry_after: for the `retry-after` header, whole seconds as a rule; None for no such header.
        code: `error.details.error_code`, None for no details.
        content_type: of the body.
    """

    content_type = JSON_TYPE

    def __init__(
        self, status: int, message: str, *, retry_after: int | str | None = None, code: str | None = None
    ) -> None:
        """Take the status and what the error body says."""
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after = retry_after
        self.code = code

    def body(self, request_id: str) -> bytes:
        """Give the JSON body; the SDK finds `error_code` in `error.details`."""
        error: dict[str, Any] = {"type": TYPES.get(self.status, "api_error"), "message": self.message}
        if self.code is not None:
            error["details"] = {"error_code": self.code}
        return json.dumps({"type": "error", "error": error, "request_id": request_id}).encode()


class GatewayError(ApiError):
    """Something in front of the API answers in its place, with a page for people."""

    content_type = HTML_TYPE

    def __init__(self) -> None:
        """Take the one status that gateways mostly have."""
        super().__init__(503, "Service Temporarily Unavailable")

    def body(self, request_id: str) -> bytes:
        """Give the page."""
        return page("503 Service Temporarily Unavailable")


class EchoingError(ApiError):
    """Something in front of the API refuses a call in words of its own, and repeats it."""

    def __init__(self, request: Any) -> None:
        """Take the request's JSON."""
        super().__init__(422, "Unprocessable Entity")
        self._request = request

    def body(self, request_id: str) -> bytes:
        """Give the body as FastAPI makes it."""
        found = {"type": "extra_forbidden", "loc": ["body"], "msg": "Extra inputs", "input": self._request}
        return json.dumps({"detail": [found]}).encode()


def echo(fault: Fault, request: dict[str, Any], key: str) -> ApiError:
    """Give a refusal that repeats what it refuses."""
    if fault is Fault.ECHO_INPUT:
        return EchoingError(request)
    if fault is Fault.ECHO_KEY:
        return ApiError(401, f"Invalid token: {key}")
    status = 400 if fault is Fault.ECHO_PROMPT else 500
    return ApiError(status, f"cannot process {json.dumps(request['messages'])}")


def invalid(message: str) -> ApiError:
    """Give the 400 of a request that says something wrong."""
    return ApiError(400, message)


def overloaded() -> ApiError:
    """Give the 529 of an API without capacity for anybody."""
    return ApiError(OVERLOADED, "Overloaded")


def rate_limited(limit: str, retry_after: int) -> ApiError:
    """Give the 429 of a used-up limit, such as "requests per minute"."""
    message = f"This request would exceed your organization's rate limit of {limit}. Please try again later."
    return ApiError(429, message, retry_after=retry_after)


def spend_limited() -> ApiError:
    """Give the 429 of an enforced spend limit: waiting does not help, so there is no retry-after."""
    message = "You have reached the monthly API usage threshold of your tier."
    return ApiError(429, message, code="enforced_spend_limit_reached")


def credit_used_up() -> ApiError:
    """Give the 400 of an account without credit; only its words tell it from a wrong request."""
    message = "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing."
    return ApiError(400, message)


def model_forbidden() -> ApiError:
    """Give the 403 of a model that the key may not call."""
    return ApiError(403, "Your API key does not have permission to use this model.")


def simulated(status: int, retry_after: str | None = None) -> ApiError:
    """Give an error of any status, as `x-simulate: 409` asks for."""
    usual = 1 if status == 429 else None
    return ApiError(status, f"Simulated {status}", retry_after=usual if retry_after is None else retry_after)
