"""Which failure of a call gets what: try again, wait for the API, or fail at once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from celery_app.errors import ApiUnreachable, NotAMessage
from tasks.failure import Failure
from tasks.loop import HungUp, OutOfTime
from tasks.losses import loss_of, timeout_of
from tasks.refusals import refusal_of

if TYPE_CHECKING:
    from collections.abc import Collection


class StreamCutShort(Exception):
    """A stream has ended in good order, but before its message; whoever sent it can be reached."""


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
    if isinstance(exc, StreamCutShort | HungUp):
        return Failure("retry", ApiUnreachable(reason=str(exc)))
    if isinstance(exc, anthropic.APIStatusError):
        return refusal_of(exc, keys)
    if isinstance(exc, OutOfTime | anthropic.APITimeoutError | httpx2.TimeoutException):
        return timeout_of(exc, seconds, bound)
    if isinstance(exc, anthropic.APIConnectionError | httpx2.TransportError | httpx2.DecodingError):
        return loss_of(exc, keys)
    if isinstance(exc, anthropic.APIResponseValidationError) or _is_half_json(exc):
        return Failure("retry", NotAMessage(status=200, content_type="broken JSON"))
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
