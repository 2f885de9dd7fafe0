"""One trace from a web request to the call of the API."""

# proj/traces.py; in proj/celery.py: trace_to(OTLPSpanExporter())
from opentelemetry import trace
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor


def trace_to(exporter):
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    CeleryInstrumentor().instrument()  # leave it out, and the lanes' own spans and the call's are there all the same
