"""The arguments and results of lane tasks are described, not shown, whichever way a job comes and is looked at."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, _state, chain, chord, group
from kit.client_rig import IN_TIME_S
from kit.waiting import wait_until
from kit.worker import WorkerProcess, worker
from kombu.exceptions import OperationalError

from tests.conftest import close

HERE = Path(__file__).parent
DB = 13
SAID = "Rumpelstiltskin"
TEXT = f"{SAID} is the patient's name. " * 40
SIZE = f"<str, {len(TEXT):,} characters>"


class Listener:
    """Hears every event of a broker, as Flower does."""

    def __init__(self, app: Celery) -> None:
        """Listen from now on, in a thread."""
        self.seen: list[dict[str, Any]] = []
        self._app, self._over, self._ready = app, threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()
        assert self._ready.wait(IN_TIME_S)

    def _listen(self) -> None:
        with self._app.connection_for_read() as connection:
            receiver = self._app.events.Receiver(connection, handlers={"*": self.seen.append})
            with receiver.consumer_context() as (listening, _, _):
                while not self._over.is_set():
                    try:
                        listening.drain_events(timeout=0.2)
                    except (TimeoutError, OperationalError):
                        self._ready.set()

    def of(self, task_id: str, *kinds: str) -> list[dict[str, Any]]:
        """Return the events of a job."""
        return [each for each in list(self.seen) if each.get("uuid") == task_id and each["type"] in kinds]

    def wait_for_end(self, task_id: str) -> None:
        """Wait until a job has ended."""
        wait_until(lambda: self.of(task_id, "task-succeeded", "task-failed"), f"the end of {task_id}")

    def stop(self) -> None:
        """Listen no more."""
        self._over.set()
        self._thread.join(IN_TIME_S)


class Place:
    """A project's web process, its worker at DEBUG, and who listens."""

    def __init__(
        self, app: Celery, started: WorkerProcess, listener: Listener, env: dict[str, str], broker: str
    ) -> None:
        self.app, self.worker, self.listener, self.env, self.broker = app, started, listener, env, broker


@pytest.fixture(scope="module")
def place(valkey, tmp_path_factory):
    """A project with private tasks, whose worker tells all that it can."""
    broker = valkey.url(DB)
    with valkey.client(DB) as redis:
        redis.flushdb()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CELERY_BROKER_URL", broker)
        patch.setenv("EZAI_API_KEY", "sk-test")
        # Its `install` makes it this process's application; other tests have another one.
        patch.setattr(_state, "default_app", _state.default_app)
        import private_tasks

        env = {"CELERY_BROKER_URL": broker, "EZAI_API_KEY": "sk-test", "PYTHONPATH": str(HERE)}
        folder = tmp_path_factory.mktemp("worker")
        arguments = ("-Q", "critical,normal,batch,celery", "-c", "4", "-l", "DEBUG", "-E")
        with worker(folder, *arguments, app="private_tasks", **env) as started:
            listener = Listener(private_tasks.app)
            yield Place(private_tasks.app, started, listener, env, broker)
            listener.stop()
        close(private_tasks.app)


@contextmanager
def stock_producer(broker: str, **configuration: Any) -> Iterator[Celery]:
    """Give an application of another project, without our code."""
    app = Celery("stock", broker=broker, set_as_current=False)
    app.conf.update(task_create_missing_queues=True, broker_transport_options={"queue_order_strategy": "priority"})
    app.conf.update(configuration)
    yield app
    app.close()


def sent_by_command(place: Place) -> str:
    """Have ``celery call`` send a job by its task's name."""
    command = [sys.executable, "-m", "celery", "-A", "private_tasks", "call", "private.summarise"]
    arguments = ["--args", json.dumps([TEXT]), "--kwargs", json.dumps({"note": TEXT}), "--queue", "batch"]
    done = subprocess.run(
        [*command, *arguments], env={**os.environ, **place.env}, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip().splitlines()[-1]


def ways_in(place: Place) -> dict[str, str]:
    """Send a job in every way that there is; return the way's name -> the id of its job."""
    summarise = place.app.tasks["private.summarise"]
    say = {"argsrepr": f"({TEXT!r},)", "kwargsrepr": TEXT}
    ids = {
        "delay": summarise.delay(TEXT).id,
        "apply_async": summarise.apply_async((TEXT,), {"note": TEXT}, queue="critical").id,
        "with a description of the caller's": summarise.apply_async((TEXT,), queue="batch", **say).id,
        "send_task": place.app.send_task("private.summarise", (TEXT,), {"note": TEXT}, queue="batch").id,
        "send_task to an ordinary queue": place.app.send_task("private.summarise", (TEXT,), queue="celery").id,
        "signature": summarise.s(TEXT).set(queue="batch").apply_async().id,
        "retry of a copy": summarise.apply_async((TEXT,), {"again": True}, queue="normal").id,
        "link": place.app.tasks["private.named"]
        .apply_async(("one of many",), link=summarise.si(TEXT), queue="batch")
        .id,
        "failure": place.app.tasks["private.fail"].apply_async((TEXT,), queue="batch").id,
        "celery call": sent_by_command(place),
    }
    ids["chain"] = chain(summarise.si(TEXT), summarise.si(TEXT, note=TEXT)).apply_async(queue="batch").id
    ids["chord"] = chord([summarise.si(TEXT), summarise.si(TEXT)], summarise.si(TEXT)).apply_async(queue="batch").id
    ids["map"] = group(summarise.map([TEXT])).apply_async(queue="batch").id
    with stock_producer(place.broker) as app:
        ids["stock producer"] = app.send_task("private.summarise", (TEXT,), {"note": TEXT}, queue="batch").id
    with stock_producer(place.broker, task_protocol=1) as app:
        ids["old protocol"] = app.send_task("private.summarise", (TEXT,), {"note": TEXT}, queue="batch").id
    return ids


@pytest.fixture(scope="module")
def jobs(place):
    """One job for each way in, ended."""
    ids = ways_in(place)
    for way, task_id in ids.items():
        if way != "map":  # the id of a group, of which there is no event
            place.listener.wait_for_end(task_id)
    wait_until(lambda: ends(place, "celery.starmap", "celery.map"), "the end of the map")
    return ids


def ends(place: Place, *names: str) -> list[str]:
    """Return the jobs of these tasks that have ended."""
    received = {each["uuid"] for each in list(place.listener.seen) if each.get("name") in names}
    return [task_id for task_id in received if place.listener.of(task_id, "task-succeeded")]


def test_no_event_shows_an_argument_or_a_result(place, jobs):
    """Neither task-sent, task-received and the others: that is what Flower and its API know of a job."""
    events = list(place.listener.seen)
    assert {"task-sent", "task-received", "task-succeeded", "task-failed"} <= {event["type"] for event in events}
    for event in events:
        assert SAID not in str(event), (event["type"], event.get("name"))
        assert "Mirabilis" not in str(event), event


def test_events_describe_arguments_by_name_and_size(place, jobs):
    """Whoever looks for a job can tell it from others."""
    for way in ("delay", "apply_async", "send_task", "celery call", "stock producer", "old protocol", "signature"):
        for event in place.listener.of(jobs[way], "task-sent", "task-received"):
            assert event["kwargs"].startswith(f"text={SIZE}"), (way, event)
    (received,) = place.listener.of(jobs["stock producer"], "task-received")
    assert received["kwargs"] == f"text={SIZE}, note={SIZE}"


def test_a_sent_event_says_what_a_received_one_says(place, jobs):
    """By name, too, when the job was sent with `send_task` and ``celery call``."""
    for way in ("delay", "send_task", "celery call", "send_task to an ordinary queue"):
        sent, received = place.listener.of(jobs[way], "task-sent", "task-received")
        assert (sent["args"], sent["kwargs"]) == (received["args"], received["kwargs"])


def test_no_log_line_shows_an_argument_or_a_result(place, jobs):
    """Not even at DEBUG, where Celery's pool writes down what it is given."""
    log = place.worker.output()
    assert "TaskPool: Apply" in log
    assert SAID not in log
    assert "Mirabilis" not in log


def test_a_stored_result_has_the_description(place, jobs):
    """With ``result_extended`` the arguments would lie beside the result for a day."""
    backend = place.app.backend
    for way, task_id in jobs.items():
        if way != "map":
            meta = json.loads(backend.client.get(backend.get_key_for_task(task_id)))
            assert meta["name"].startswith("private."), way
            assert SAID not in str({**meta, "result": ""}), way
    assert place.app.AsyncResult(jobs["delay"]).kwargs == f"text={SIZE}"
    assert place.app.AsyncResult(jobs["retry of a copy"]).result == "Mirabilis 4"


def test_inspect_shows_the_description(place):
    """``celery inspect active``, ``reserved`` and ``query_task`` tell of a running job, and ``scheduled`` of none."""
    from celery_app.connections.redis_client import redis_client

    redis_client(place.app).delete("let go")
    job = place.app.tasks["private.hold"].apply_async((TEXT,), queue="critical")
    inspect = place.app.control.inspect(timeout=2.0)
    try:
        wait_until(lambda: job.id in str(inspect.active()), "the job to be active")
        told = [inspect.active(), inspect.reserved(), inspect.scheduled(), inspect.query_task(job.id)]
    finally:
        redis_client(place.app).set("let go", 1, ex=60)
    assert job.get(timeout=IN_TIME_S)
    assert SIZE in str(told[0])
    assert SIZE in str(told[3])
    assert SAID not in str(told)


def test_a_failure_has_a_line_with_no_more_than_its_class(place, jobs):
    """The words of a project's own exception are in Celery's line above it, as ever."""
    (line,) = [each for each in place.worker.output().splitlines() if f"[{jobs['failure']}] failed" in each]
    assert line.endswith(f"batch: private.fail[{jobs['failure']}] failed after 1 attempt: LookupError")
    assert "no such patient" in place.worker.output()


def test_a_rejected_job_has_a_line(place):
    """It goes to the dead letters at its task's own wish."""
    job = place.app.tasks["private.reject"].apply_async((TEXT,), queue="batch")
    said = f"batch: private.reject[{job.id}] goes to the dead letters: rejected"
    wait_until(lambda: said in place.worker.output(), said)
    assert SAID not in place.worker.output()


def test_a_task_may_say_more(place):
    """By ``shows_arguments``, or by a description of its own."""
    shown = place.app.tasks["private.shown"].apply_async(("in the open",), queue="batch")
    named = place.app.tasks["private.named"].apply_async((TEXT.replace(SAID, "Ludwig"),), queue="batch")
    for job in (shown, named):
        place.listener.wait_for_end(job.id)

    for event in place.listener.of(shown.id, "task-sent", "task-received"):
        assert event["args"] == "('in the open',)"
    assert "shown: in the open" in place.listener.of(shown.id, "task-succeeded")[0]["result"]
    for event in place.listener.of(named.id, "task-sent", "task-received"):
        assert event["kwargs"] == "about Ludwig"
    assert "name" not in str(place.app.AsyncResult(named.id).kwargs)
    assert place.app.AsyncResult(shown.id).args == ["in the open"]


def test_an_ordinary_task_is_shown_as_celery_shows_it(place):
    """The lanes change nothing for a project's own tasks."""
    job = place.app.tasks["private.ordinary"].apply_async(("as ever",), queue="celery")
    place.listener.wait_for_end(job.id)
    for event in place.listener.of(job.id, "task-sent", "task-received"):
        assert event["args"] == "('as ever',)"
    assert place.listener.of(job.id, "task-succeeded")[0]["result"] == "'ordinary: as ever'"
    assert place.app.AsyncResult(job.id).args == ["as ever"]


def test_an_unknown_task_in_a_lane_is_described(place):
    """It may be one of another process's lane tasks; nothing here could tell."""
    job = place.app.send_task("private.elsewhere", (TEXT,), {"note": TEXT}, queue="batch")
    wait_until(lambda: place.listener.of(job.id, "task-sent", "task-failed"), "its event")
    (sent,) = place.listener.of(job.id, "task-sent")
    assert sent["kwargs"] == f"#1={SIZE}, note={SIZE}"
    wait_until(lambda: "private.elsewhere" in place.worker.output(), "the worker's word on it")
    assert SAID not in place.worker.output()
