"""A job's part in a trace: nothing, until the process has OpenTelemetry, for whose sake nothing is imported here."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any

from celery_app.process.away import say_away

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping
    from types import ModuleType

    from celery_app.traced import Traced

#: Whoever says where traces go has imported this; in a worker the API's SDK has, too.
_API = "opentelemetry.trace"


def published() -> AbstractContextManager[Mapping[str, str]]:
    """Return a block to publish a job in; it gives the headers in which the trace travels with the job."""
    spans = _spans()
    return nullcontext(_NO_HEADERS) if spans is None else spans.published()


def claimed(job: Traced, headers: MutableMapping[str, Any], properties: MutableMapping[str, Any], queued: int) -> None:
    """Tell for how long a job was queued that a worker has claimed, and have what follows follow that.

    Args:
        job: that was.
        headers: of its message, which has the trace of its submission; that of its time in the queue takes its place.
        properties: of its message, which learn when it was claimed.
        queued: ms until now.
    """
    spans = _recording()
    if spans is not None:
        _harmless(spans.claimed, job, headers, properties, queued)


def ended(job: Traced, request: Any, since: float, outcome: str) -> None:
    """Tell of a job that no worker will have in hand.

    Args:
        job: that has ended.
        request: Celery's view of it.
        since: seconds since the epoch when it was submitted.
        outcome: ``cancelled`` or ``deadline``.
    """
    spans = _recording()
    if spans is not None:
        _harmless(spans.ended, job, request, since, outcome)


def reserved(job: Traced, request: Any, *, is_first: bool) -> AbstractContextManager[Callable[[], None]]:
    """Return the block around a job's call; it gives what is to be called when the call leaves.

    Within it the call's own spans belong to the job's trace.

    Args:
        job: in hand.
        request: Celery's view of it.
        is_first: whether it is the job's first call; the others are not waited for since the claim.
    """
    spans = _recording()
    return nullcontext(_nothing) if spans is None else spans.reserved(job, request, is_first=is_first)


_NO_HEADERS: Mapping[str, str] = {}

#: Why nobody can say where spans go. It is asked for once: OpenTelemetry logs a traceback each time.
_unreadable: list[Exception] = []


def _nothing() -> None:
    """Nobody is told."""


def _spans() -> ModuleType | None:
    return _loaded() if _API in sys.modules else None


def _recording() -> ModuleType | None:
    spans = _spans()
    return spans if spans is not None and not _unreadable and _are_recorded(spans) else None


def _are_recorded(spans: ModuleType) -> bool:
    try:
        return bool(spans.are_recorded())
    except Exception as exc:  # noqa: BLE001 - OTEL_PYTHON_TRACER_PROVIDER may name one that is not installed
        _unreadable.append(exc)
        say_away("no job is traced", exc)
        return False


@cache
def _loaded() -> ModuleType | None:
    try:
        from celery_app import spans
    except Exception as exc:  # noqa: BLE001 - OTEL_PROPAGATORS may name one that is not installed
        say_away("no job carries a trace", exc)
        return None
    return spans


def _harmless(tell: Callable[..., None], *args: Any) -> None:
    """Have no job fail because of what a project's propagator, sampler or span processor raises."""
    try:
        tell(*args)
    except Exception as exc:  # noqa: BLE001 - whatever it is
        say_away("a span was not told", exc)
