"""Two spans around those that others make of a job: queued, and reserved until its call leaves.

    a request of the web app -> queued batch -> run (Celery's instrumentation, if it is on) -> reserved batch
                                                                                            -> chat (the SDK) -> POST

Each attempt has its own ``queued``, below whatever published the job. Names and attributes are those of OpenTelemetry's
semantic conventions for messaging and GenAI as far as there are any. Only `celery_app.tracing` imports this.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from celery import current_task
from celery.exceptions import Retry, TaskPredicate
from opentelemetry import context, propagate, trace
from opentelemetry.trace import Span, SpanKind, StatusCode

from celery_app.errors import Cancelled
from celery_app.process.away import say_away

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, MutableMapping

    from opentelemetry.context import Context

    from celery_app.traced import Traced

#: Property of a delivered message: when it was claimed, in ns since the epoch; it exists in the worker only.
CLAIMED_AT = "lanes_claimed_at"

_NS_PER_MS = 1_000_000
_NS_PER_S = 1_000_000_000


def are_recorded() -> bool:
    """Return whether anybody has said where spans go."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


@contextmanager
def published() -> Iterator[Mapping[str, str]]:
    """See `celery_app.tracing.published`."""
    before = context.get_current()
    try:
        yield _carried()
    except BaseException:
        _leave_leaked(before)
        raise


def claimed(job: Traced, headers: MutableMapping[str, Any], properties: MutableMapping[str, Any], queued: int) -> None:
    """See `celery_app.tracing.claimed`."""
    parent, now = propagate.extract(headers), time.time_ns()
    span = _span("queued", job, SpanKind.CONSUMER, parent, now - queued * _NS_PER_MS)
    _end(span, "claimed", at=now)
    propagate.inject(headers, trace.set_span_in_context(span, parent))
    properties[CLAIMED_AT] = now


def ended(job: Traced, request: Any, since: float, outcome: str) -> None:
    """See `celery_app.tracing.ended`."""
    span = _span("queued", job, SpanKind.CONSUMER, _parent_in(request), round(since * _NS_PER_S))
    span.set_status(StatusCode.ERROR)
    _end(span, outcome)


@contextmanager
def reserved(job: Traced, request: Any, *, is_first: bool) -> Iterator[Callable[[], None]]:
    """See `celery_app.tracing.reserved`."""
    begun = _begun(job, request, is_first)
    if begun is None:
        yield lambda: None
        return
    span, parent = begun
    token = context.attach(parent)
    try:
        yield lambda: _end(span, "called")
    except BaseException as exc:
        _end(span, _outcome_of(exc), exc)
        raise
    finally:
        _end(span, "ended")
        context.detach(token)


def _leave_leaked(before: Context) -> None:
    """End the span of a job that was not published.

    Celery's instrumentation hears of a job that was, never of one for which there was no room: its span would be open,
    and the parent of all that follows. Where the span is that of before, a project's handler attached something else.
    """
    leaked = trace.get_current_span()
    if leaked is trace.get_current_span(before):
        return
    try:
        leaked.end()
    except Exception as exc:  # noqa: BLE001 - a project's processor may raise anything
        say_away("a span was not told", exc)
    context.attach(before)


def _begun(job: Traced, request: Any, is_first: bool) -> tuple[Span, Context] | None:
    """Return the span of a reservation and what it follows, if the project's sampler and processors allow."""
    try:
        is_within = trace.get_current_span().get_span_context().is_valid
        parent = context.get_current() if is_within else _parent_in(request)
        since = (request.properties or {}).get(CLAIMED_AT) if is_first else None
        return _span("reserved", job, SpanKind.INTERNAL, parent, since), parent
    except Exception as exc:  # noqa: BLE001 - they may raise anything
        say_away("a span was not told", exc)
        return None


def _carried() -> Mapping[str, str]:
    """Return the headers of what goes on now; without a span, those of the job in hand, which has others follow it."""
    headers: dict[str, str] = {}
    try:
        if current_task and not trace.get_current_span().get_span_context().is_valid:
            propagate.inject(headers, _parent_in(current_task.request))
        else:
            propagate.inject(headers)
    except Exception as exc:  # noqa: BLE001 - a project's propagator may raise anything
        say_away("a job carries no trace", exc)
    return headers


def _parent_in(request: Any) -> Context:
    """Return what the job of one of Celery's requests follows: Celery makes its headers attributes."""
    fields = {name: request.get(name) for name in propagate.get_global_textmap().fields}
    return propagate.extract({name: value for name, value in fields.items() if isinstance(value, str)})


def _span(name: str, job: Traced, kind: SpanKind, parent: Context, since: int | None) -> Span:
    attributes: dict[str, str | int] = {
        "messaging.system": "celery",
        "messaging.operation.name": name,
        "messaging.destination.name": job.lane,
        "messaging.message.id": job.id,
        "lanes.task": job.task,
        "lanes.attempt": job.attempt,
        **({"gen_ai.request.model": job.model} if job.model else {}),
        **({"lanes.tenant": job.tenant} if job.tenant else {}),
    }
    tracer = trace.get_tracer("ezai-lanes")
    return tracer.start_span(f"{name} {job.lane}", parent, kind, attributes, start_time=since)


def _end(span: Span, outcome: str, error: BaseException | None = None, at: int | None = None) -> None:
    """End a span that has not ended; what a project's processor or exporter raises is neither the job's nor its error.

    Args:
        span: of a job.
        outcome: of what it stands for.
        error: that ended it.
        at: ns since the epoch when it did; now, if nothing is said.
    """
    try:
        if not span.is_recording():
            return
        span.set_attribute("lanes.outcome", outcome)
        if error is not None and outcome == "failed":
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(StatusCode.ERROR)  # without words: those of a project's own errors may be a prompt's
        span.end(at)
    except Exception as exc:  # noqa: BLE001 - they may raise anything
        say_away("a span was not told", exc)


def _outcome_of(error: BaseException) -> str:
    if isinstance(error, Cancelled):
        return "cancelled"
    if isinstance(error, TaskPredicate):
        return "returned" if isinstance(error, Retry) else "lost"
    return "failed"
