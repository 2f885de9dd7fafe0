"""What the SDK traces and logs of our calls holds no prompt, whatever the environment asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from broker_kit.waiting import wait_until
from client_rig import params, web_app
from worker_process import worker

from celery_app.client import Client
from demo.simulator import running
from tasks.clients import client_for
from tasks.loop import close_loop
from tests.conftest import close

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Valkey

SAID = "Rumpelstiltskin is the patient's name"

#: A project that traces all that its workers do, and logs all that the SDK says.
PROJECT = """
import logging
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=open("spans.txt", "a"))))
trace.set_tracer_provider(provider)
logging.basicConfig(level=logging.DEBUG, filename="log.txt")
for name in ("anthropic", "anthropic._base_client", "httpx2", "httpcore2"):
    logging.getLogger(name).setLevel(logging.DEBUG)

from celery_app import app
"""

ENVIRONMENT = {
    "ANTHROPIC_OPEN_TELEMETRY": "true",
    "ANTHROPIC_OPEN_TELEMETRY_TRACES_CONTENT_MODE": "content",
    "ANTHROPIC_OPEN_TELEMETRY_TRACES_MAX_CONTENT_BYTES": "1000000",
    "ANTHROPIC_LOG": "debug",
}


def test_no_prompt_is_exported_from_a_worker(valkey: Valkey, tmp_path: Path) -> None:
    """Spans go on without content: of whole calls, of streams, of calls that fail; and no DEBUG log shows a request."""
    (tmp_path / "traced_app.py").write_text(PROJECT)
    with valkey.client(10) as redis:
        redis.flushdb()
    app = web_app(valkey.url(10))
    spans = tmp_path / "spans.txt"
    with running() as api:
        env = {"CELERY_BROKER_URL": valkey.url(10), "EZAI_API_KEY": "sk-secret-0123", "EZAI_BASE_URL": api.url}
        with worker(tmp_path, "-c", "2", app="traced_app", **env, **ENVIRONMENT) as running_worker:
            client, stops = Client(app), {"system": SAID, "stop_sequences": [SAID]}
            client.ask(**params(SAID, **stops))
            for fault in (None, "400", "stream_api_error"):
                list(client.stream(**params(SAID, fault, **stops)))
            wait_until(lambda: spans.read_text().count("gen_ai.request.model") > 2, "spans of the calls")
            said = spans.read_text() + running_worker.output() + (tmp_path / "log.txt").read_text()
    close(app)

    assert '"gen_ai.operation.name": "chat"' in said
    assert "Rumpelstiltskin" not in said
    assert "sk-secret" not in said


@pytest.mark.parametrize(
    ("variable", "value", "enabled", "propagation"),
    [
        ("ANTHROPIC_OPEN_TELEMETRY", "False", False, True),
        ("ANTHROPIC_OPEN_TELEMETRY_PROPAGATION", "false", True, False),
        ("ANTHROPIC_OPEN_TELEMETRY_TRACES_CONTENT_MODE", "CONTENT", True, True),
    ],
)
def test_what_the_environment_switches_off_stays_off(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, enabled: bool, propagation: bool
) -> None:
    """Content is the only thing that it cannot have."""
    monkeypatch.setenv(variable, value)
    close_loop()
    options = client_for("k", "http://127.0.0.1:9").open_telemetry
    close_loop()

    assert options["traces"]["content_mode"] == "metadata_only"
    assert (options["traces"]["enabled"], options["propagation"]) == (enabled, propagation)
