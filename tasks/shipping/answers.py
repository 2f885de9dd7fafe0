"""What a job is run with that comes back from a batch of the API's."""

from __future__ import annotations

import json
from typing import Any

from tasks.refusals import ACCOUNT_WORDS

#: What a batch says of a request that the API refuses as it would a call.
_REFUSED = "invalid_request_error"


def answer_in(row: Any) -> str:
    """Return what a job is to be run with, by its line of the results, as JSON; empty: it goes live.

    A message, or the error of a request that the API refuses as it would a call. What has failed otherwise, was
    cancelled or has expired is nobody's fault, and a call of its own may do.
    """
    match row:
        case {"result": {"type": "succeeded", "message": {"content": list()} as message}}:
            return json.dumps(message)
        case {"result": {"type": "errored", "error": dict() as error}} if _is_refusal(error):
            return json.dumps(_whole(error))
    return ""


def _whole(error: dict[str, Any]) -> dict[str, Any]:
    """Return an error as a call's answer has it."""
    return error if isinstance(error.get("error"), dict) else {"type": "error", "error": error}


def _is_refusal(error: dict[str, Any]) -> bool:
    """Whether it is about the request, and not about the account: that is for a call to find out."""
    inner = _whole(error)["error"]
    return inner.get("type") == _REFUSED and not str(inner.get("message")).lower().startswith(ACCOUNT_WORDS)
