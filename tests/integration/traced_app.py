"""A project that traces what it does, and logs all that the SDK says; ``celery -A traced_app`` runs its workers.

Each span is a line of JSON in the file ``$SPANS``; with ``$INSTRUMENTED``, Celery's instrumentation makes its own.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from anthropic import Anthropic
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

for name in ("anthropic", "anthropic._base_client", "httpx2", "httpcore2"):
    logging.getLogger(name).setLevel(logging.DEBUG)

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


@app.task(bind=True, base=LaneTask, name="traced.own")
def own(self: LaneTask, text: str, fault: str | None = None) -> str:
    """Make an admitted call with the SDK, as projects do; how a client of theirs traces is theirs to say."""
    client = Anthropic(
        api_key=os.environ["OWN_KEY"],
        base_url=os.environ["OWN_URL"],
        max_retries=0,
        open_telemetry={"traces": {"content_mode": "metadata_only"}},
    )
    befallen = {"metadata": {"user_id": f"simulate:{fault}"}} if fault else {}
    with self.admit(input_tokens=10, model="m") as call:
        messages = [{"role": "user", "content": text}]
        message = client.messages.create(model="m", max_tokens=99, messages=messages, **befallen)
        call.answered(message)
    return str(message.content)
