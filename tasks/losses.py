"""Which loss of a connection gets what: no answer in time, none at all, half of one, or one that is no HTTP."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from celery_app.errors import ApiUnreachable, CallTimeout
from tasks.failure import Failure
from tasks.redaction import redacted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

#: How the HTTP client says that the other side has hung up; of its protocol's other errors, which are nonsense that
#: somebody sends, it is told apart by its words alone.
_HUNG_UP = ("Server disconnected", "peer closed connection")

#: How it says that a connection was reset, behind other words.
_RESET = "Connection reset by peer"

#: How the HTTP library begins to say that an answer was cut off.
_CUT_OFF = "Not enough data"


def timeout_of(exc: BaseException, seconds: float, bound: str) -> Failure:
    """A call that left may have been answered in vain, and paid for; one without a connection was not."""
    import httpx2

    cause = exc if isinstance(exc, httpx2.TimeoutException) else exc.__cause__
    if isinstance(cause, httpx2.ConnectTimeout | httpx2.PoolTimeout):
        return Failure("retry", ApiUnreachable(reason=f"no connection within {seconds:.1f} s"), overloaded=True)
    return Failure("retry", CallTimeout(timeout=seconds, bound=bound), timed_out=True)


def loss_of(exc: BaseException, keys: Collection[str]) -> Failure | None:
    """Judge how a connection failed; None: by what we sent, which no repetition mends."""
    import httpx2

    # The SDK's error has the HTTP client's as its cause, which has those of the libraries below.
    cause = exc if isinstance(exc, httpx2.HTTPError) else exc.__cause__ or exc
    if isinstance(cause, httpx2.LocalProtocolError) or (
        isinstance(cause, ValueError) and not isinstance(cause, UnicodeError)
    ):
        return None  # what we sent was wrong, and will be
    if isinstance(cause, httpx2.DecodingError):
        return Failure("retry", ApiUnreachable(reason="the body of its answer is not encoded as it says"))
    nonsense = _nonsense_in(exc)
    error = ApiUnreachable(reason=nonsense or _reason(exc, keys))
    if isinstance(cause, httpx2.TooManyRedirects | httpx2.InvalidURL | httpx2.UnsupportedProtocol):
        return Failure("fatal", error)  # a redirection that leads nowhere
    return Failure("retry", error, overloaded=not nonsense and _is_away(cause))


def _nonsense_in(exc: BaseException) -> str:
    """Say what is wrong with an answer that is no HTTP, without a word of it; empty for what is not there at all."""
    import aiohttp
    from aiohttp.http_exceptions import BadHttpMessage

    for each in _chain(exc):
        if isinstance(each, BadHttpMessage | aiohttp.ClientResponseError) and not each.message.startswith(_CUT_OFF):
            return f"its answer is no HTTP ({each.message.partition(':')[0]})"
    return ""


def _chain(exc: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it was raised from."""
    while exc is not None:
        yield exc
        exc = exc.__cause__


def _is_away(cause: BaseException) -> bool:
    """Whether there is no connection; who sends nonsense is there."""
    import httpx2

    if isinstance(cause, httpx2.RemoteProtocolError):
        return str(cause).startswith(_HUNG_UP)
    return not isinstance(cause, ValueError)  # that is an answer which could not be read


def _reason(exc: BaseException, keys: Collection[str]) -> str:
    """Name the cause below the SDK's "Connection error."."""
    import aiohttp

    for each in _chain(exc):  # whose own words show parts of the answer
        if isinstance(each, aiohttp.ServerDisconnectedError):
            return "the server disconnected"
        if isinstance(each, aiohttp.ClientOSError) and (each.errno or 0) > 0:
            return f"[Errno {each.errno}] {os.strerror(each.errno or 0)}"
        if isinstance(each, aiohttp.ClientPayloadError):
            return f"its answer is incomplete{', connection reset by peer' * (_RESET in str(each))}"
    cause = exc.__cause__ or exc
    return redacted(str(cause), _request_of(exc), keys) or type(cause).__name__


def _request_of(exc: Any) -> Any:
    try:
        return exc.request
    except (AttributeError, RuntimeError):  # httpx2 raises the latter where it does not know
        return None
