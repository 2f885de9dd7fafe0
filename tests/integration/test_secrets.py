"""Prompts and keys stay where they belong, whatever an API repeats of them: a place is a line of the table."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import click
import pytest
from canary_rig import LOGIN, SECRETS, TASKS, Seen, answers, secrets_in, seen
from click.testing import CliRunner
from kit.client_rig import wait_until
from prometheus_client import CollectorRegistry, generate_latest

from celery_app import dead_letters
from celery_app.metrics.prometheus import LanesCollector
from celery_lanes_plugin import lanes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Valkey

#: Celery 5.7 stores a result by a command that redis-py 8 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")


#: What Flower's page asks its table for.
TABLE = "draw=1&start=0&length=1000&search[value]=&order[0][column]=0&order[0][dir]=asc&columns[0][data]=name"


@pytest.fixture(scope="module")
def it(valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """Everything, after the secrets have gone through."""
    with seen(valkey, 14, tmp_path_factory.mktemp("canary")) as it:
        yield it


def printed(*words: str) -> Callable[[Seen], str]:
    """Return what reads the output of one of the operators' commands; ``<dead>`` is a dead letter's id."""

    def read(it: Seen) -> str:
        known = [the_dead(it) if word == "<dead>" else word for word in words]
        celery = click.Group("celery", {"lanes": lanes}, params=[click.Option(["--app"])])
        done = CliRunner().invoke(celery, ["--app=mine", "lanes", *known], obj=SimpleNamespace(app=it.app))
        assert not done.exception or isinstance(done.exception, SystemExit), done.output
        return done.output

    return read


def the_dead(it: Seen) -> str:
    """Return the id of one of the dead letters of `create_message`."""
    wait_until(lambda: dead_letters.find(it.app, task=TASKS[0]), "a dead letter")
    return dead_letters.find(it.app, task=TASKS[0])[0].id


def processes(it: Seen) -> str:
    """Return the command lines of all processes."""
    lines = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(each.read_text().replace("\0", " "))
        except OSError:
            continue  # it is over
    return "\n".join(lines)


def results(it: Seen) -> str:
    """Return what the result backend holds of jobs without an answer."""
    return unanswered(it, "celery-task-meta-")


def streams(it: Seen) -> str:
    """Return what readers of streams get, in place of an answer."""
    return unanswered(it, "lanes:stream:")


def unanswered(it: Seen, prefix: str) -> str:
    """Return what is kept of jobs without an answer."""
    kept = {key: text for key, text in it.kept().items() if key.startswith(prefix)}
    return str([text for key, text in kept.items() if not key.endswith(answers(it))])


def task_pages(it: Seen) -> str:
    """Return Flower's page of each job."""
    return "".join(it.page(f"/task/{job}") for job in it.jobs)


def exported(it: Seen) -> str:
    """Return what Prometheus reads."""
    registry = CollectorRegistry()
    registry.register(LanesCollector(it.app))
    return generate_latest(registry).decode()


#: Place -> what reads it, and what shows that it was looked at where there is something to see.
PLACES: dict[str, tuple[Callable[[Seen], str], str]] = {
    "the worker's log at DEBUG": (lambda it: it.worker.output(), "TaskPool: Apply"),
    "the web app's log at DEBUG": (lambda it: it.log.getvalue(), "DEBUG"),
    "Flower's log": (lambda it: (it.folder / "flower.log").read_text(), "Visit me"),
    "what the web app's caller gets": (lambda it: "".join(it.errors), "ApiError"),
    "Celery's events": (lambda it: str(it.events), "task-retried"),
    "the worker's spans": (lambda it: (it.folder / "spans").read_text(), "anthropic.messages.create"),
    "the web app's spans": (lambda it: str([each.to_json() for each in it.spans.get_finished_spans()]), "apply_async"),
    "results": (results, "FAILURE"),
    "streams": (streams, "error"),
    "Flower: workers": (lambda it: it.page("/"), "celery@"),
    "Flower: tasks": (lambda it: it.page("/tasks"), "Tasks"),
    "Flower: its table of tasks": (lambda it: it.page(f"/tasks/datatable?{TABLE}"), "create_message"),
    "Flower: a task": (task_pages, "kwargs"),
    "Flower: broker": (lambda it: it.page("/broker"), "Broker"),
    "Flower: its API's tasks": (lambda it: it.page("/api/tasks?limit=1000"), "traced.own"),
    "Flower: its API's workers": (lambda it: it.page("/api/workers?refresh=1"), "registered"),
    "Flower: its API's queues": (lambda it: it.page("/api/queues/length"), "batch"),
    "Flower: metrics": (lambda it: it.page("/metrics"), "flower_events_total"),
    "the exporter": (exported, "lanes_"),
    "lanes status": (printed("status"), "batch"),
    "lanes status --json": (printed("status", "--json"), "batch"),
    "lanes why": (printed("why"), "batch"),
    "lanes why --json": (printed("why", "--json"), "batch"),
    "lanes why of a job": (printed("why", "<dead>", "--json"), "dead"),
    "lanes check": (printed("check"), "dead"),
    "lanes check --json": (printed("check", "--json"), "dead"),
    "lanes limits": (printed("limits"), "batch"),
    "lanes limits --json": (printed("limits", "--json"), "batch"),
    "lanes drain": (printed("drain", "critical"), "critical: empty"),
    "lanes dead list": (printed("dead", "list"), "create_message"),
    "lanes dead list --json": (printed("dead", "list", "--json"), "create_message"),
    "lanes dead show": (printed("dead", "show", "<dead>"), "create_message"),
    "lanes dead show --json": (printed("dead", "show", "<dead>", "--json"), "create_message"),
    "processes": (processes, LOGIN),
}


@pytest.mark.parametrize("place", PLACES)
def test_no_prompt_and_no_key_is_seen(it: Seen, place: str) -> None:
    """Neither is where others look; and what others look for is there."""
    read, shown = PLACES[place]
    text = read(it)

    assert secrets_in(text) == []
    assert shown in text


def test_no_traceback_leads_to_the_sdks_error(it: Seen) -> None:
    """It shows the whole body: none of ours is chained to it, in the log, in the events, in the results."""
    for text in (str(it.events), results(it)):
        assert "anthropic." not in text
    assert "raised expected" in it.worker.output()
    assert "anthropic/_base_client.py" not in it.worker.output()


def test_only_who_asks_for_the_payload_sees_the_prompt(it: Seen) -> None:
    """``dead show --payload`` shows the prompt, for whoever has to see it, and no key."""
    assert secrets_in(printed("dead", "show", "<dead>", "--payload")(it)) == [SECRETS[0]]


def test_redis_has_a_prompt_only_as_long_as_its_job_lives(it: Seen) -> None:
    """It is in the job's own text, and with the job's end it is gone; no key is anywhere."""
    where = {name: found for name, text in holds(it).items() if (found := secrets_in(text))}
    living = {name.removeprefix("lanes:jobs ") for name in it.kept() if name.startswith("lanes:jobs ")}
    assert where == {f"lanes:texts {job}": [SECRETS[0]] for job in living}
    assert living

    dead_letters.purge(dead_letters.find(it.app), it.app)
    for job in living:
        it.client.cancel(job)
    wait_until(lambda: not any(name.startswith("lanes:jobs") for name in it.kept()), "the end of all jobs")

    assert [name for name, text in holds(it).items() if secrets_in(text)] == []


def holds(it: Seen) -> dict[str, str]:
    """Return what Redis holds that is no answer: in a result, a stream, or on its way to who asked."""
    return {name: text for name, text in it.kept().items() if not name.endswith(answers(it))}
