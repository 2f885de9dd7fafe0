"""A project that traces what it does; ``celery -A traced_app`` runs its workers.

Each span is a line of JSON in the file ``$SPANS``; with ``$INSTRUMENTED``, Celery's instrumentation makes its own.
"""

from __future__ import annotations

import os
from pathlib import Path

from celery import Celery
from opentelemetry import trace
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from celery_app import install
from tasks import LaneTask


def line(span: ReadableSpan) -> str:
    """Return a span as a line."""
    return span.to_json(indent=None) + "\n"


provider = TracerProvider()
exporter = ConsoleSpanExporter(out=Path(os.environ["SPANS"]).open("a"), formatter=line)  # noqa: SIM115 - until the end
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
if "INSTRUMENTED" in os.environ:
    CeleryInstrumentor().instrument()

app = Celery("traced", set_as_current=False, backend=os.environ["CELERY_BROKER_URL"])
install(app)


@app.task(base=LaneTask, name="traced.join")
def join(parts: list[dict[str, object]]) -> int:
    """Be the body of a chord."""
    return len(parts)


@app.task(bind=True, base=LaneTask, name="traced.twice")
def twice(self: LaneTask) -> None:
    """Draw two calls on the budget, which nobody makes."""
    for _ in range(2):
        with self.admit(model="m"):
            pass


@app.task(name="traced.plain")
def plain() -> None:
    """Be a task of the project's own, in a queue of its own."""
