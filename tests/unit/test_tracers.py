"""What a tracer does wrong is no job's business: neither its end nor its error."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider

from celery_app import tracing
from celery_app.traced import Traced

if TYPE_CHECKING:
    from collections.abc import Iterator

JOB = Traced("batch", "tasks.create_message", "j", "m", "", 1)


class Request(dict[str, Any]):
    """Celery's view of a job that has no trace yet."""

    properties = None


@pytest.fixture
def absent_provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An environment that names a tracer provider which is not installed, in a process that has none."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setenv("OTEL_PYTHON_TRACER_PROVIDER", "nobodys")
    tracing._unreadable.clear()
    yield
    tracing._unreadable.clear()


@pytest.mark.usefixtures("absent_provider")
def test_a_provider_that_is_not_installed_touches_no_job(caplog: pytest.LogCaptureFixture) -> None:
    """A job is claimed, called and ended as if nobody traced, and that is said once."""
    headers, properties = {"id": "j"}, dict[str, Any]()
    for _ in range(3):
        tracing.claimed(JOB, headers, properties, 5)
        with tracing.reserved(JOB, Request(), is_first=True) as leaves:
            leaves()
        tracing.ended(JOB, Request(), 0.0, "cancelled")

    assert (headers, properties) == ({"id": "j"}, {})
    assert sum("no job is traced" in line for line in caplog.messages) == 1


class Broken(SpanProcessor):
    """One whose exporter is gone."""

    def on_end(self, span: ReadableSpan) -> None:
        """Fail, as the SDK lets it."""
        raise OSError(span.name)


@pytest.fixture
def broken_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider of the process whose processor fails at each end."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Broken())
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)


@pytest.mark.usefixtures("broken_processor")
def test_a_processor_that_fails_fails_no_job() -> None:
    """The job goes on, and so does its trace."""
    headers, properties = dict[str, str](), dict[str, Any]()
    tracing.claimed(JOB, headers, properties, 5)
    with tracing.reserved(JOB, Request(), is_first=True) as leaves:
        leaves()
    with tracing.reserved(JOB, Request(), is_first=False):
        pass
    tracing.ended(JOB, Request(), 0.0, "cancelled")

    assert "traceparent" in headers
    assert list(properties) == ["lanes_claimed_at"]


@pytest.mark.usefixtures("broken_processor")
def test_a_processor_that_fails_hides_no_error() -> None:
    """What the call raises arrives as it is, with nothing of the tracer's behind it."""
    error = LookupError("of the call")
    with pytest.raises(LookupError) as caught, tracing.reserved(JOB, Request(), is_first=True):
        raise error

    assert caught.value is error
    assert error.__context__ is None


def test_baggage_of_a_projects_own_handler_ends_no_span() -> None:
    """A request's span goes on after it published a job, or could not, though a handler attached something to it."""
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("web")
    with tracer.start_as_current_span("POST") as span:
        with tracing.published():
            context.attach(baggage.set_baggage("user", "u"))
        with suppress(LookupError), tracing.published():
            context.attach(baggage.set_baggage("user", "v"))
            raise LookupError

        assert span.is_recording()
        assert trace.get_current_span() is span
        assert baggage.get_baggage("user") == "v"


def test_a_processor_that_fails_hides_no_refusal() -> None:
    """The producer's span of a job that was refused ends: whoever published hears the refusal, below their own span."""
    provider = TracerProvider(shutdown_on_exit=False)
    tracer = provider.get_tracer("web")
    provider.add_span_processor(Broken())
    own = trace.NonRecordingSpan(trace.INVALID_SPAN_CONTEXT)
    error, refused = LookupError("no room"), tracer.start_span("apply_async")

    def publish() -> None:
        with tracing.published():
            context.attach(trace.set_span_in_context(refused))
            raise error

    with trace.use_span(own, record_exception=False):
        with pytest.raises(LookupError) as caught:
            publish()

        assert caught.value is error
        assert not refused.is_recording()
        assert trace.get_current_span() is own
