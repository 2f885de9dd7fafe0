"""Which failure of a call gets what: try again, wait for the API, or fail at once."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from celery_app.budget import RateLimits
from celery_app.errors import ApiError, ApiUnreachable, CallTimeout, NotAMessage
from tasks.redaction import content_type_of, redacted

if TYPE_CHECKING:
    from collections.abc import Collection

    from anthropic import APIStatusError

    from celery_app.budget import Outcome

#: Seconds to open a connection to the API; more means that it is down, not slow.
CONNECT_SECONDS = 5.0

#: Full-jitter backoff: uniform in 0 … min(BACKOFF_CAP, BACKOFF_BASE * 2^failures).
#: Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
BACKOFF_BASE = 0.5
BACKOFF_CAP = 60.0

#: Failures from which on the backoff is at its cap, however many there were.
MOST_DOUBLED = 10

#: Seconds until the next try after a 429 that does not say when; the budget decides how long it really takes.
LIMITED_PAUSE = 0.1

#: Below 500, what passes: timeout, conflict, too early. From 500 on everything does, whatever number a gateway invents,
#: but for what the server will never know how to do.
PASSING_STATUSES = frozenset({408, 409, 425})
LASTING_STATUSES = frozenset({501, 505})

#: The API is overloaded; or a gateway (Cloudflare's numbers) finds it down, which is as if we did not reach it.
OVERLOADED_STATUSES = frozenset({521, 522, 523, 529})

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

#: How the API names what concerns the account, in ``error.details.error_code``, whatever the status.
ACCOUNT_CODES = frozenset(
    {
        "enforced_spend_limit_reached",
        "contract_spend_limit_reached",
        "linked_organization_spend_limit_reached",
        "linked_organization_billing_unavailable",
        "organization_on_hold",
    }
)

#: Statuses of an account whose key is unknown or revoked, or which has not paid.
ACCOUNT_STATUSES = frozenset({401, 402})

#: How the API's words begin where it says the same with a 400 or 403 and no code. Only the beginning counts: what comes
#: behind may repeat a prompt.
ACCOUNT_WORDS = (
    "your credit balance is too low",
    "you have reached your specified api usage limits",
    "this organization has been disabled",
)

#: In a ``permission_error``: it is about a model, a beta, a feature or a thing that this one job names.
_ONE_JOBS = re.compile(
    r"\b(models?|betas?|features?|tools?|files?|containers?|skills?|user.profiles?)\b", re.IGNORECASE
)

#: An error's type as the API writes it; anything else may be anybody's words.
_TYPE = re.compile(r"[a-z_]{1,64}")


#: How the HTTP client says that the other side has hung up; of its protocol's other errors, which are nonsense that
#: somebody sends, it is told apart by its words alone.
_HUNG_UP = ("Server disconnected", "peer closed connection")

#: Where an error of another API's form says its status, and which numbers are one.
_STATUS_FIELDS = ("status", "status_code", "http_status", "code")
_STATUSES = range(400, 600)


class StreamCutShort(Exception):
    """A stream has ended in good order, but before its message; whoever sent it can be reached."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What a failed call means for its job.

    Attributes:
        kind: ``fatal``: the job fails at once. ``limited``: it goes back, no attempt spent. ``retry``: it goes back
            after a backoff, one attempt spent.
        error: what the job fails with, safe for a JSON result backend, for logs and for events.
        retry_after: seconds the API asked to be left alone; None where it did not say.
        overloaded: whether everybody should slow down.
        headers: of the answer, None if there was none.
        account: whether this is the API's verdict on the account, and so on every call; see `refuses_account`.
        timed_out: whether the call took all of its time: the next one will most likely, too, and be paid for as well.
    """

    kind: Literal["fatal", "limited", "retry"]
    error: Exception
    retry_after: float | None = None
    overloaded: bool = False
    headers: Mapping[str, str] | None = None
    timed_out: bool = False
    account: bool = False

    @property
    def outcome(self) -> Outcome:
        """How the call ended, for the budget."""
        if self.kind == "limited":
            return "limited"
        if self.account:
            return "refused"
        return "overloaded" if self.overloaded else "failed"


def failure_of(exc: BaseException, seconds: float, keys: Collection[str] = (), bound: str = "") -> Failure | None:
    """Judge what the SDK, or the HTTP client below it, raised.

    Args:
        exc: the exception of a call.
        seconds: that the call took.
        keys: API keys that no message may show.
        bound: what set the time that the call might take, in words.

    Returns:
        The failure, or None for an exception that is no failure of the call but a defect of ours.
    """
    import anthropic
    import httpx2

    if isinstance(exc, NotAMessage):
        return Failure("retry", exc)
    if isinstance(exc, StreamCutShort):
        return Failure("retry", ApiUnreachable(reason=str(exc)))
    if isinstance(exc, anthropic.APIStatusError):
        return _of_status(exc, keys)
    if isinstance(exc, anthropic.APITimeoutError | httpx2.TimeoutException):
        return _of_timeout(exc, seconds, bound)
    if isinstance(exc, anthropic.APIConnectionError | httpx2.TransportError | httpx2.DecodingError):
        return _of_connection(exc, keys)
    if isinstance(exc, anthropic.APIResponseValidationError) or _is_half_json(exc):
        return Failure("retry", NotAMessage(status=200, content_type="broken JSON"))
    return None


def _of_timeout(exc: BaseException, seconds: float, bound: str) -> Failure:
    """A call that left may have been answered in vain, and paid for; one without a connection was not."""
    import httpx2

    cause = exc if isinstance(exc, httpx2.TimeoutException) else exc.__cause__
    if isinstance(cause, httpx2.ConnectTimeout | httpx2.PoolTimeout):
        return Failure("retry", ApiUnreachable(reason=f"no connection within {seconds:.1f} s"), overloaded=True)
    return Failure("retry", CallTimeout(timeout=seconds, bound=bound), timed_out=True)


def _of_connection(exc: BaseException, keys: Collection[str]) -> Failure | None:
    import httpx2

    # The SDK's error has the HTTP client's as its cause, which has those of the libraries below.
    cause = exc if isinstance(exc, httpx2.HTTPError) else exc.__cause__ or exc
    if isinstance(cause, httpx2.LocalProtocolError):
        return None  # what we sent was wrong, and will be
    if isinstance(cause, httpx2.DecodingError):
        return Failure("retry", ApiUnreachable(reason="the body of its answer is not encoded as it says"))
    error = ApiUnreachable(reason=_reason(exc, keys))
    if isinstance(cause, httpx2.TooManyRedirects | httpx2.InvalidURL | httpx2.UnsupportedProtocol):
        return Failure("fatal", error)  # a redirection that leads nowhere
    return Failure("retry", error, overloaded=_is_away(cause))


def _is_away(cause: BaseException) -> bool:
    """Whether there is no connection; who sends nonsense is there."""
    import httpx2

    if isinstance(cause, httpx2.RemoteProtocolError):
        return str(cause).startswith(_HUNG_UP)
    return not isinstance(cause, ValueError)  # that is an answer which could not be read


def backoff(failures: int) -> float:
    """Return the seconds to wait after the n-th failure, counted from 0."""
    return random.uniform(0, min(BACKOFF_CAP, BACKOFF_BASE * 2 ** min(failures, MOST_DOUBLED)))


def _of_status(exc: APIStatusError, keys: Collection[str]) -> Failure:
    # The SDK follows redirections; one that leads nowhere is an answer like any other.
    has_status = exc.status_code >= 300
    kind = _type_of(exc.body)
    status = exc.status_code if has_status else _status_of(exc.body, kind)
    headers = exc.response.headers
    retry_after = RateLimits.of(headers).retry_after
    error = ApiError(status=status, type=kind, text=_words(exc, keys))
    if refuses_account(exc, status, kind):
        return Failure("fatal", error, headers=headers, account=True)
    if status == 429:
        return Failure("limited", error, retry_after, headers=headers)
    if _passes(status):
        # An error within a stream is one call's own: the API has taken it, and takes others.
        return Failure("retry", error, retry_after, has_status and status in OVERLOADED_STATUSES, headers)
    return Failure("fatal", error, headers=headers)


def refuses_account(exc: APIStatusError, status: int, kind: str) -> bool:
    """Judge whether a refusal concerns the account, and so every call, or one job.

    The account: 401 and 402 of whatever form; an error code or words that say that credit is used up, a spend limit is
    reached or the organization is on hold; a 403 ``permission_error`` of the Messages API's form.
    The job: a 403 that speaks of a model, a beta, a file or the like, which another job need not name, or that is of
    any other form: a firewall in front of the API refuses single prompts with it. And every other answer.

    Args:
        exc: the refusal.
        status: its status, or what its type stands for in a stream.
        kind: its type.
    """
    if exc.error_code is not None and exc.error_code in ACCOUNT_CODES:
        return True
    if status in ACCOUNT_STATUSES:
        return not (exc.error_code or "").startswith("user_profile")
    said = exc.body.get("error") if isinstance(exc.body, Mapping) else None
    words = said.get("message") if isinstance(said, Mapping) else None
    if status not in {400, 403} or not isinstance(words, str):
        return False
    if words.lower().startswith(ACCOUNT_WORDS):
        return True
    return status == 403 and kind == "permission_error" and not exc.error_code and not _ONE_JOBS.search(words)


def _type_of(body: object) -> str:
    """Return an error's type; gateways put it here and there."""
    error = body.get("error") if isinstance(body, Mapping) else None
    said = error.get("type") if isinstance(error, Mapping) else error
    if isinstance(said, str) and _TYPE.fullmatch(said) and (isinstance(error, Mapping) or said in STATUS_OF_TYPE):
        return said
    own = body.get("type") if isinstance(body, Mapping) else None
    return own if isinstance(own, str) and own in STATUS_OF_TYPE else "error"


def _status_of(body: object, kind: str) -> int:
    """Return the status that an error with status 200 stands for; what does not say passes."""
    if kind in STATUS_OF_TYPE:
        return STATUS_OF_TYPE[kind]
    places = (body.get("error"), body) if isinstance(body, Mapping) else ()
    for place in places:
        for name in _STATUS_FIELDS:
            said = place.get(name) if isinstance(place, Mapping) else None
            if isinstance(said, str) and said.isascii() and said.isdigit() and len(said) == len("500"):
                said = int(said)
            if type(said) is int and said in _STATUSES:
                return said
    return 500


def _passes(status: int) -> bool:
    return status in PASSING_STATUSES or (status >= 500 and status not in LASTING_STATUSES)


def _words(exc: APIStatusError, keys: Collection[str]) -> str:
    """Return the API's own words; of any other body, which may repeat the whole request, only what kind it is."""
    match exc.body:
        case {"type": "error", "error": {"message": str(message)}}:
            return redacted(message, exc.request, keys)
    return f"its body is no error of the Messages API ({content_type_of(exc.response.headers)})"


def _reason(exc: BaseException, keys: Collection[str]) -> str:
    """Name the cause below the SDK's "Connection error."."""
    cause = exc.__cause__ or exc
    return redacted(str(cause), _request_of(exc), keys) or type(cause).__name__


def _request_of(exc: Any) -> Any:
    try:
        return exc.request
    except (AttributeError, RuntimeError):  # httpx2 raises the latter where it does not know
        return None


def _is_half_json(exc: BaseException) -> bool:
    """Whether the SDK could not read its answer; a project that cannot read a model's words raises the same."""
    import anthropic

    if not isinstance(exc, json.JSONDecodeError):
        return False
    frame = exc.__traceback__
    while frame is not None:
        if frame.tb_frame.f_globals.get("__name__", "").startswith(f"{anthropic.__name__}."):
            return True
        frame = frame.tb_next
    return False
