"""What is kept of what others see: Celery's events, Flower, this process's log and traces."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from kit.client_rig import IN_TIME_S
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from opentelemetry.trace import Tracer


@contextmanager
def events(app: Any, seen: list[dict[str, Any]]) -> Iterator[None]:
    """Keep everything that Celery's events say within the block."""
    over, listens = threading.Event(), threading.Event()

    def listen() -> None:
        with app.connection_for_read() as connection:
            receiver = app.events.Receiver(connection, handlers={"*": seen.append})
            with receiver.consumer_context() as (listening, _, _):
                while not over.is_set():
                    with suppress(TimeoutError):
                        listening.drain_events(timeout=0.2)
                    listens.set()

    thread = threading.Thread(target=listen)
    thread.start()
    assert listens.wait(IN_TIME_S)
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def flower(port: int, folder: Path, env: dict[str, str], login: str) -> Iterator[None]:
    """Run Flower, with the log of all that it says in the folder."""
    command = [sys.executable, "-m", "celery", "-A", "traced_app", "flower", f"--port={port}", f"--basic-auth={login}"]
    with (
        (folder / "flower.log").open("wb") as output,
        subprocess.Popen(
            [*command, "--logging=debug"], stdout=output, stderr=output, env={**os.environ, **env}, cwd=folder
        ) as flower,
    ):
        try:
            yield
        finally:
            flower.kill()


@contextmanager
def log() -> Iterator[io.StringIO]:
    """Keep what this process logs, at DEBUG."""
    text, root = io.StringIO(), logging.getLogger()
    handler, level = logging.StreamHandler(text), root.level
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield text
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


@contextmanager
def traces() -> Iterator[tuple[Tracer, InMemorySpanExporter]]:
    """Trace what this process submits."""
    provider, spans, instrumentor = TracerProvider(), InMemorySpanExporter(), CeleryInstrumentor()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    instrumentor.instrument(tracer_provider=provider)
    try:
        yield provider.get_tracer("web"), spans
    finally:
        instrumentor.uninstrument()
