"""Which failure of a call gets what: try again, wait for the API, or fail at once."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from celery_app.errors import ApiError, ApiUnreachable, CallTimeout, NotAMessage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anthropic import APIStatusError

    from celery_app.budget import Outcome

#: Seconds to open a connection to the API; more means that it is down, not slow.
CONNECT_SECONDS = 5.0

#: Full-jitter backoff: uniform in 0 … min(BACKOFF_CAP, BACKOFF_BASE * 2^failures).
#: Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
BACKOFF_BASE = 0.5
BACKOFF_CAP = 60.0

#: Seconds until the next try after a 429 that does not say when; the budget decides how long it really takes.
LIMITED_PAUSE = 0.1

RETRYABLE_STATUSES = frozenset({408, 409, 500, 502, 503, 504, 529})

#: In-stream errors arrive with status 200; their type stands for the status the API would have answered with.
STATUS_OF_TYPE = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}

#: A 429 that no waiting helps against.
SPEND_LIMIT = "enforced_spend_limit_reached"


@dataclass(frozen=True, slots=True)
class Failure:
    """What a failed call means for its job.

    Attributes:
        kind: ``fatal``: the job fails at once. ``limited``: it goes back, no attempt spent. ``retry``: it goes back
            after a backoff, one attempt spent.
        error: what the job fails with, safe for a JSON result backend.
        retry_after: seconds the API asked to be left alone; None where it did not say.
        overloaded: whether everybody should slow down.
    """

    kind: Literal["fatal", "limited", "retry"]
    error: Exception
    retry_after: float | None = None
    overloaded: bool = False


def failure_of(exc: Exception, timeout: float) -> Failure | None:
    """Judge what the SDK, or the HTTP client below it, raised.

    Args:
        exc: the exception of a call.
        timeout: seconds that the call was given.

    Returns:
        The failure, or None for an exception that is no failure of the call but a defect of ours.
    """
    import anthropic
    import httpx2

    if isinstance(exc, NotAMessage):
        return Failure("retry", exc)
    if isinstance(exc.__cause__ or exc, httpx2.LocalProtocolError | httpx2.UnsupportedProtocol):
        return None  # what we sent was wrong, and will be
    if isinstance(exc, anthropic.APIStatusError):
        return _of_status(exc)
    if isinstance(exc, anthropic.APITimeoutError | httpx2.TimeoutException):
        return Failure("retry", CallTimeout(timeout=timeout))
    if isinstance(exc, anthropic.APIConnectionError | httpx2.TransportError):
        return Failure("retry", ApiUnreachable(reason=_reason(exc)))
    if isinstance(exc, json.JSONDecodeError | anthropic.APIResponseValidationError):
        return Failure("retry", NotAMessage(status=200, content_type="broken JSON"))
    return None


def outcome_of(exc: Exception) -> tuple[Outcome, Mapping[str, str] | None]:
    """Return how a failed call ended, for the budget, and the headers of its answer."""
    failure = failure_of(exc, 0)
    headers = getattr(getattr(exc, "response", None), "headers", None)
    if failure is None or failure.kind == "fatal":
        return "failed", headers
    if failure.kind == "limited":
        return "limited", headers
    unreachable = isinstance(failure.error, ApiUnreachable)
    return "overloaded" if failure.overloaded or unreachable else "failed", headers


def backoff(failures: int) -> float:
    """Return the seconds to wait after the n-th failure, counted from 0."""
    return random.uniform(0, min(BACKOFF_CAP, BACKOFF_BASE * 2**failures))


def _of_status(exc: APIStatusError) -> Failure:
    kind = exc.type or "error"
    status = exc.status_code if exc.status_code >= 400 else STATUS_OF_TYPE.get(kind, 500)
    error = ApiError(status=status, type=kind, text=exc.api_message or _short(exc.message))
    if status == 429 and exc.error_code != SPEND_LIMIT:
        return Failure("limited", error, retry_after=_retry_after(exc.response.headers))
    if status in RETRYABLE_STATUSES:
        return Failure("retry", error, _retry_after(exc.response.headers), overloaded=status == 529)
    return Failure("fatal", error)


def _retry_after(headers: Any) -> float | None:
    """Parse ``retry-after`` in seconds; a date or nonsense counts as not said."""
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None


def _reason(exc: Exception) -> str:
    """Name the cause below the SDK's "Connection error."."""
    cause = exc.__cause__ or exc
    return _short(str(cause)) or type(cause).__name__


def _short(text: str, limit: int = 200) -> str:
    """A gateway's error may be a whole HTML page."""
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[:limit]}…"
