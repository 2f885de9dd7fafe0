"""Which refusal of the API gets what: an answer with an error, of whatever form."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from celery_app.budget import RateLimits
from celery_app.errors import ApiError
from tasks.failure import Failure
from tasks.redaction import content_type_of, redacted

if TYPE_CHECKING:
    from collections.abc import Collection

    from anthropic import APIStatusError

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

#: Where an error of another API's form says its status, and which numbers are one.
_STATUS_FIELDS = ("status", "status_code", "http_status", "code")
_STATUSES = range(400, 600)


def refusal_of(exc: APIStatusError, keys: Collection[str]) -> Failure:
    """Judge an answer with an error; no message may show one of these API keys."""
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
