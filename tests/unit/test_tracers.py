"""What a tracer does wrong is no job's business: neither its end nor its error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace

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
