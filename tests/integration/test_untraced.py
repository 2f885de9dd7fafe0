"""Where nobody traces, OpenTelemetry costs nothing and breaks nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import opentelemetry.trace  # noqa: F401 - as the SDK does in a worker
import pytest
from kit.client_rig import params
from opentelemetry import propagate

from celery_app import tracing
from celery_app.client import Client
from celery_app.traced import Traced

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis import Redis

JOB = Traced("batch", "tasks.create_message", "j", "m", "", 1)

#: Submits a job in each way, and prints what is imported for the sake of traces.
SUBMITS = """
import sys
{before}
import celery_app
params = dict(model="m", max_tokens=9, messages=[dict(role="user", content="Hello")])
celery_app.submit(lane="batch", **params)
celery_app.submit_many([params], lane="batch")
celery_app.stream(lane="batch", **params)
print(*(name for name in ("opentelemetry.trace", "opentelemetry.propagate", "celery_app.spans") if name in sys.modules))
"""


def submit(broker_url: str, before: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Submit in a process of its own, after a line of code."""
    environ = {**os.environ, "CELERY_BROKER_URL": broker_url, **env}
    command = [sys.executable, "-c", SUBMITS.format(before=before)]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("absent", ["opentelemetry", "opentelemetry.sdk"])
def test_a_web_process_without_opentelemetry_imports_nothing_for_it(broker_url: str, absent: str) -> None:
    """Whether all of it is absent, or all but the API, which Anthropic's SDK brings along."""
    done = submit(broker_url, f"sys.modules[{absent!r}] = None")

    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_propagators_that_are_not_there_break_no_submission(broker_url: str, client: Redis) -> None:
    """The environment may name any: the jobs go without a trace, and that is said once."""
    done = submit(broker_url, "import opentelemetry.trace", OTEL_PROPAGATORS="nobodys")

    assert client.hlen("lanes:jobs") == 3
    assert done.stderr.count("no job carries a trace") == 1


@pytest.fixture
def broken_propagator() -> Iterator[None]:
    """A project's own propagator, which fails."""

    class Broken(propagate.textmap.TextMapPropagator):
        fields = frozenset({"own"})

        def inject(self, *_: Any, **__: Any) -> None:
            raise LookupError

        extract = inject  # type: ignore[assignment]

    before = propagate.get_global_textmap()
    propagate.set_global_textmap(Broken())
    yield
    propagate.set_global_textmap(before)


@pytest.mark.usefixtures("broken_propagator")
def test_a_propagator_that_fails_breaks_no_submission(lanes_app: Any, client: Redis) -> None:
    """Whatever a project's own raises, its job is queued."""
    Client(lanes_app).submit(**params(), lane="batch")

    assert client.hlen("lanes:jobs") == 1


def test_a_worker_without_an_exporter_passes_a_trace_on_as_it_came() -> None:
    """The API alone makes no span: what follows the job follows its submission."""
    headers, properties = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}, dict[str, Any]()
    before = dict(headers)
    tracing.claimed(JOB, headers, properties, 5)

    assert (headers, properties) == (before, {})
