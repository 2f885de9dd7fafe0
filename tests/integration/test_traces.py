"""One trace from a request of the web app to the API, with what a job waited for in it."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from celery import chord
from kit.client_rig import IN_TIME_S, params, web_app
from kit.waiting import wait_until
from kit.worker import worker
from opentelemetry import trace
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from celery_app import controls
from celery_app.client import Client
from celery_app.errors import ApiError, Cancelled, LaneDraining
from demo.simulator import running
from tasks import create_message
from tests.conftest import close

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from celery import Celery

    from tests.conftest import Valkey

# redis-py's word to Celery's result backend, which stores cancellations.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

HERE = Path(__file__).parent

#: How the SDK names its span.
CALL = "anthropic.messages.create"


@dataclass(frozen=True, slots=True)
class Rig:
    """A web app that is traced, and a worker that is.

    Attributes:
        app: of the web app.
        client: on it.
        tracer: of the web app.
        finished: its spans.
        file: with the worker's.
        instrumented: whether Celery's instrumentation is on, in both.
    """

    app: Celery
    client: Client
    tracer: trace.Tracer
    finished: InMemorySpanExporter
    file: Path
    instrumented: bool

    def traced(self, request: Callable[[], Any], number: int) -> list[dict[str, Any]]:
        """Return the spans of one request of the web app, which are so many, in the order of their beginnings."""
        with self.tracer.start_as_current_span("POST") as span:
            request()
            assert trace.get_current_span() is span
        trace_id = f"0x{span.get_span_context().trace_id:032x}"

        def spans() -> list[dict[str, Any]]:
            own = [json.loads(each.to_json()) for each in self.finished.get_finished_spans()]
            workers = [json.loads(line) for line in self.file.read_text().splitlines() if line.endswith("}")]
            return [each for each in own + workers if each["context"]["trace_id"] == trace_id]

        with suppress(AssertionError):  # what there is says more
            wait_until(lambda: len(spans()) >= number, "the spans")
        return sorted(spans(), key=lambda span: span["start_time"])

    def way(self, lane: str, *ends: str, task: str = "tasks.create_message", above: str = "POST") -> list[str]:
        """Return the ways to the ends of one attempt: to its call and its reservation, if nothing else is said."""
        sent, run = (f"{step}/{task} > " if self.instrumented else "" for step in ("apply_async", "run"))
        return [f"{above} > {sent}queued {lane} > {run}{end}" for end in ends or (CALL, f"reserved {lane}")]


def ways(spans: list[dict[str, Any]]) -> list[str]:
    """Return the way from the root to each span that has no child."""
    known = {span["context"]["span_id"]: span for span in spans}
    parents = {span["parent_id"] for span in spans}

    def way(span: dict[str, Any]) -> str:
        above = span["parent_id"]
        return f"{way(known[above])} > {span['name']}" if above else span["name"]

    return sorted(way(span) for span in spans if span["context"]["span_id"] not in parents)


@pytest.fixture(scope="module", params=["plain", "instrumented"])
def up(request: pytest.FixtureRequest, valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A web app and a worker, with Celery's instrumentation and without."""
    with valkey.client(12) as redis:
        redis.flushdb()
    file, finished, provider = tmp_path_factory.mktemp("traces") / "spans", InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(finished))
    app, instrumentor, extra = web_app(valkey.url(12)), CeleryInstrumentor(), {}
    if request.param == "instrumented":
        instrumentor.instrument(tracer_provider=provider)
        extra = {"INSTRUMENTED": "1"}
    with running() as api:
        env = {"CELERY_BROKER_URL": valkey.url(12), "EZAI_API_KEY": "sk-test", "EZAI_BASE_URL": api.url, **extra}
        env = {**env, "SPANS": str(file), "PYTHONPATH": str(HERE)}
        queues = ("-Q", "critical,normal,batch,celery", "-c", "8")
        with worker(file.parent, *queues, app="traced_app", **env):
            yield Rig(app, Client(app), provider.get_tracer("web"), finished, file, bool(extra))
    if extra:
        instrumentor.uninstrument()
    close(app)


def test_one_trace_leads_from_the_request_to_the_call(up: Rig) -> None:
    """The time in the queue follows the submission, the call and its reservation follow the time in the queue."""
    spans = up.traced(lambda: up.client.ask(**params(), lane="normal", tenant="acme"), 6 if up.instrumented else 4)

    assert ways(spans) == up.way("normal")
    by_name = {span["name"].split()[0]: span for span in spans}
    post, queued, reserved, chat = (by_name[name] for name in ("POST", "queued", "reserved", CALL))
    assert post["start_time"] <= queued["start_time"] <= queued["end_time"] == reserved["start_time"]
    assert reserved["end_time"] <= chat["start_time"]
    assert {"lanes.outcome": "claimed", **said(queued)} == queued["attributes"]
    assert {"lanes.outcome": "called", **said(reserved)} == reserved["attributes"]
    assert said(queued)["lanes.tenant"] == "acme"


def said(span: dict[str, Any]) -> dict[str, Any]:
    """Return what a span of the job says beside its outcome."""
    return {
        "messaging.system": "celery",
        "messaging.operation.name": span["name"].split()[0],
        "messaging.destination.name": "normal",
        "messaging.message.id": span["attributes"]["messaging.message.id"],
        "gen_ai.request.model": "m",
        "lanes.task": "tasks.create_message",
        "lanes.tenant": "acme",
        "lanes.attempt": 1,
    }


def test_each_attempt_is_in_the_trace(up: Rig) -> None:
    """A job that comes back is queued from its return on, below what published it."""

    def fail() -> None:
        with pytest.raises(ApiError):
            up.client.ask(**params(fault="server_error"))

    spans = up.traced(fail, 14 if up.instrumented else 10)

    assert ways(spans) == sorted(3 * up.way("critical"))
    of = {name: [span for span in spans if span["name"].startswith(name)] for name in ("queued", "reserved", CALL)}
    for name in ("queued", "reserved"):
        assert [span["attributes"]["lanes.attempt"] for span in of[name]] == [1, 2, 3]
    returns = zip(of[CALL], of["queued"][1:], strict=False)
    assert all(call["end_time"] <= queued["start_time"] for call, queued in returns)


def test_all_jobs_of_a_batch_are_in_the_trace(up: Rig) -> None:
    """Each has its own time in the queue, below the one submission of all."""

    def submit() -> None:
        batch = up.client.submit_many([params(), params(), params()], lane="batch")
        assert len(list(batch.results(patience=IN_TIME_S))) == 3

    spans = up.traced(submit, 14 if up.instrumented else 10)

    assert ways(spans) == sorted(3 * up.way("batch"))
    ids = {span["attributes"]["messaging.message.id"] for span in spans if span["name"] == "queued batch"}
    assert len(ids) == 3


def test_a_stream_is_in_the_trace(up: Rig) -> None:
    """Its task has another name, its way is the same."""
    spans = up.traced(lambda: list(up.client.stream(**params())), 6 if up.instrumented else 4)

    assert ways(spans) == up.way("critical", task="tasks.stream_message")


def test_what_follows_a_job_is_in_the_trace(up: Rig) -> None:
    """A chord's body, which a worker publishes, follows the part that ended last: Celery's instrumentation or not."""
    task, body = up.app.tasks[create_message.name], up.app.signature("traced.join", queue="batch")

    def submit() -> None:
        parts = [task.s(**params()).set(queue="normal") for _ in range(2)]
        chord(parts, body, app=up.app).delay().get(timeout=IN_TIME_S)

    spans = up.traced(submit, 14 if up.instrumented else 8)

    (part,) = set(up.way("normal", ""))
    joined = up.way("batch", "", task="traced.join", above=part.removesuffix(" > "))[0].removesuffix(" > ")
    assert ways(spans) == sorted([*2 * up.way("normal"), joined])


def test_a_task_sent_by_name_is_in_the_trace(up: Rig) -> None:
    """The web app need not know it; each of its calls has a reservation, the second's begins when it is asked for."""
    spans = up.traced(
        lambda: up.app.send_task("traced.twice", queue="batch").get(timeout=IN_TIME_S), 6 if up.instrumented else 4
    )

    assert ways(spans) == 2 * up.way("batch", "reserved batch", task="traced.twice")
    first, second = (span for span in spans if span["name"] == "reserved batch")
    assert first["end_time"] <= second["start_time"]


def test_a_job_that_never_starts_says_why(up: Rig) -> None:
    """One that is cancelled in the queue has its time there in the trace, as an error."""

    def cancel() -> None:
        result = up.app.tasks[create_message.name].apply_async(kwargs=params(), queue="normal", countdown=3_600)
        assert up.client.cancel(result)
        with pytest.raises(Cancelled):
            result.get(timeout=IN_TIME_S)

    spans = up.traced(cancel, 3 if up.instrumented else 2)

    (queued,) = (span for span in spans if span["name"] == "queued normal")
    assert (queued["attributes"]["lanes.outcome"], queued["status"]) == ("cancelled", {"status_code": "ERROR"})


def test_a_refused_submission_leaves_the_trace_as_it_was(up: Rig) -> None:
    """Celery's instrumentation hears of no end where nothing was published: its span ends, and is nothing's parent."""
    controls.drain(up.app, "batch")

    def refused() -> None:
        with pytest.raises(LaneDraining):
            up.client.submit(**params(), lane="batch")
        up.client.ask(**params())

    spans = up.traced(refused, 7 if up.instrumented else 4)
    controls.fill_again(up.app, "batch")

    assert ways(spans) == sorted(
        [*up.way("critical"), *(["POST > apply_async/tasks.create_message"] * up.instrumented)]
    )


def test_a_projects_own_tasks_are_as_without_the_lanes(up: Rig) -> None:
    """What goes to its own queue has the spans of Celery's instrumentation, and none of ours."""
    spans = up.traced(
        lambda: up.app.send_task("traced.plain", queue="celery").get(timeout=IN_TIME_S), 1 + 2 * up.instrumented
    )

    assert ways(spans) == ["POST" + " > apply_async/traced.plain > run/traced.plain" * up.instrumented]
