"""A prompt and keys that must not be seen, sent through everything that there is; what was seen is kept.

A worker at DEBUG with traces, Flower, the web app's own log and traces, everything that Celery's events say.
"""

from __future__ import annotations

import base64
import traceback
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery import Celery
from kit.client_rig import IN_TIME_S, params, web_app
from kit.waiting import wait_until
from kit.worker import WorkerProcess, worker
from watching import events, flower, log, traces

from celery_app.client import Client
from celery_app.connections.redis_client import redis_client
from celery_app.errors import LanesError
from demo.ports import free_port
from demo.simulator import RunningServer, running
from tests.conftest import close

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Iterator

    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from tests.conftest import Valkey

SAID = "Rumpelstiltskin is the patient's name"
KEYS = {"EZAI_API_KEY": "sk-secret-0123", "EZAI_API_KEY_BATCH": "another-secret-0123", "OWN_KEY": "own-secret-0123"}
SECRETS = ("Rumpelstiltskin", *KEYS.values())

#: What Flower asks of whoever looks.
LOGIN = "ada:lovelace"

#: What befalls a call: the last one keeps it away for good, the others make it fail, once its attempts are used up.
FAULTS = ("echo_input", "echo_prompt", "echo_prompt_again", "503;retry-after=1e308")

#: It shuts the lane's budget, so it comes last.
REFUSED_KEY = "echo_key"

TASKS = ("tasks.create_message", "tasks.stream_message", "traced.own")

#: Whatever the environment asks for.
TALKATIVE = {
    "ANTHROPIC_OPEN_TELEMETRY": "true",
    "ANTHROPIC_OPEN_TELEMETRY_TRACES_CONTENT_MODE": "content",
    "ANTHROPIC_OPEN_TELEMETRY_TRACES_MAX_CONTENT_BYTES": "1000000",
    "ANTHROPIC_LOG": "debug",
    "INSTRUMENTED": "1",
}


@dataclass(frozen=True, slots=True)
class Seen:
    """All that there is, and what was seen of it.

    Attributes:
        app: of the web app.
        client: on it.
        api: that the worker calls.
        worker: for all lanes.
        port: of Flower.
        folder: with the files ``spans`` and ``flower.log``.
        spans: of the web app.
        log: of the web app, at DEBUG.
        events: everything that Celery's events say.
        errors: as whoever asked gets them, with their tracebacks.
        jobs: ids of all.
    """

    app: Celery
    client: Client
    api: RunningServer
    worker: WorkerProcess
    port: int
    folder: Path
    spans: InMemorySpanExporter
    log: io.StringIO
    events: list[dict[str, Any]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    jobs: set[str] = field(default_factory=set)

    def page(self, path: str) -> str:
        """Return what Flower answers; empty while it does not."""
        login = base64.b64encode(LOGIN.encode()).decode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", headers={"Authorization": f"Basic {login}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=IN_TIME_S) as answer:  # noqa: S310 - ours
                return str(answer.read().decode())
        except OSError:
            return ""

    def kept(self) -> dict[str, str]:
        """Return key of Redis -> all that is in it, a field of a hash by itself."""
        redis, found = redis_client(self.app), {}
        read: dict[bytes, Callable[[bytes], Any]] = {
            b"string": redis.get,
            b"list": lambda key: redis.lrange(key, 0, -1),
            b"set": redis.smembers,
            b"zset": lambda key: redis.zrange(key, 0, -1),
            b"stream": redis.xrange,
            b"none": lambda _: "",  # it has gone meanwhile
        }
        for key in redis.keys("*"):
            kind = redis.type(key)
            parts = redis.hgetall(key).items() if kind == b"hash" else [(b"", read[kind](key))]
            found.update({f"{key.decode()} {name.decode()}".strip(): str(value) for name, value in parts})
        return found


def forms(secret: str) -> list[str]:
    """Return a text as it may be seen: as it is, and within something in base64, as kombu's bodies are."""
    shifted = [base64.b64encode(b"x" * shift + secret.encode()).decode() for shift in range(3)]
    return [secret, *(text[4:-4] for text in shifted)]


def secrets_in(text: str) -> list[str]:
    """Return the secrets that a text shows."""
    return [secret for secret in SECRETS if any(form in text for form in forms(secret))]


@contextmanager
def seen(valkey: Valkey, db: int, folder: Path) -> Iterator[Seen]:
    """Start it all, and send the secrets through."""
    with valkey.client(db) as redis:
        redis.flushdb()
    port, app = free_port(), web_app(valkey.url(db))
    here = Path(__file__).parent
    with running() as api, log() as logged, traces() as (tracer, spans):
        env = {"CELERY_BROKER_URL": valkey.url(db), "EZAI_BASE_URL": api.url, "OWN_URL": api.url, **KEYS, **TALKATIVE}
        env |= {"SPANS": str(folder / "spans"), "PYTHONPATH": f"{here}:{here.parents[1]}"}
        env |= {f"LANES_{lane}_ATTEMPTS": "2" for lane in ("CRITICAL", "BATCH")}
        with (
            worker(folder, "-c", "8", "-Q", "critical,normal,batch", "-l", "DEBUG", app="traced_app", **env) as started,
            flower(port, folder, {**env, "SPANS": str(folder / "flower-spans")}, LOGIN),
        ):
            it = Seen(app, Client(app), api, started, port, folder, spans, logged)
            wait_until(lambda: it.page("/api/workers"), "Flower answers", 2 * IN_TIME_S)
            with tracer.start_as_current_span("POST"):
                _send(it, valkey.url(db))
            yield it
    close(app)


def _send(it: Seen, broker: str) -> None:
    """Send jobs of each kind, by each way in, and wait until each has ended or is away."""
    with events(it.app, it.events):
        _succeed(it, broker)
        _fail(it)
        for task in TASKS:
            _forget_budgets(it)
            it.jobs.update(_job(it, task, REFUSED_KEY, lane) for lane in ("critical", "batch"))
            wait_until(lambda: it.jobs <= _settled(it.events), "the end of what has no key any more")


def _succeed(it: Seen, broker: str) -> None:
    stops = {"system": SAID, "stop_sequences": [SAID]}
    it.client.ask(**params(SAID, **stops))
    list(it.client.stream(**params(SAID, **stops)))
    assert len(list(it.client.submit_many([params(SAID)] * 2, lane="batch").results(IN_TIME_S))) == 2
    it.app.send_task("traced.own", (SAID,), queue="normal").get(timeout=IN_TIME_S)
    with Celery("stock", broker=broker, set_as_current=False) as stock:  # which describes its arguments by showing them
        it.jobs.add(stock.send_task(TASKS[0], kwargs=params(SAID, "echo_prompt_again"), queue="batch").id)
        it.jobs.add(stock.send_task(TASKS[0], kwargs=params(SAID), queue="batch").id)


def _fail(it: Seen) -> None:
    it.jobs.update(_job(it, task, fault, lane) for task in TASKS for fault in FAULTS for lane in ("critical", "batch"))
    for fault in FAULTS:
        for call in (it.client.ask, lambda **these: list(it.client.stream(**these))):
            try:
                call(**params(SAID, fault))
            except LanesError as exc:
                it.errors.append("".join(traceback.format_exception(exc)) + repr(exc) + repr(vars(exc)))
    wait_until(lambda: it.jobs <= _settled(it.events), "the end of all that fails")


def _job(it: Seen, task: str, fault: str, lane: str) -> str:
    arguments = {"kwargs": {"text": SAID, "fault": fault}} if task == "traced.own" else {"kwargs": params(SAID, fault)}
    job = it.app.tasks[task].apply_async if task in it.app.tasks else partial(it.app.send_task, task)
    return str(job(**arguments, queue=lane).id)


def _settled(events: list[dict[str, Any]]) -> set[str]:
    """Return the jobs that have ended, or wait in the broker for an hour or until somebody gives them another key."""
    retried = (event for event in events if event["type"] == "task-retried")
    away = {event["uuid"] for event in retried if any(word in event["exception"] for word in ("503", "401"))}
    return away | {event["uuid"] for event in events if event["type"] in {"task-failed", "task-succeeded"}}


def answers(it: Seen) -> tuple[str, ...]:
    """Return the ids of jobs that were answered: the answers repeat the prompt, and are where answers belong."""
    return tuple(event["uuid"] for event in it.events if event["type"] == "task-succeeded")


def _forget_budgets(it: Seen) -> None:
    """Open what the API has shut."""
    redis = redis_client(it.app)
    for key in redis.keys("lanes:budget:*"):
        redis.delete(key)
