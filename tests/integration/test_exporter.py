"""What Prometheus reads of the lanes, from a real broker."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from typing import Any

import pytest
from kit.client_rig import params, rig
from kit.scheduler import Scheduler
from kit.waiting import wait_until
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from redis.connection import Connection

from celery_app import create_app
from celery_app.budget import Budget, CallEnd
from celery_app.connections.redis_client import redis_client
from celery_app.errors import LanesError
from celery_app.lanes import BATCH, CRITICAL, LANES, NORMAL
from celery_app.metrics.events import JobEvent
from celery_app.metrics.prometheus import LanesCollector
from celery_app.metrics.recorder import Recorder
from celery_app.metrics.stats import get_queue_stats
from celery_app.settings import Limits, Settings
from tests.conftest import close

#: The command ends, and answers, well within this.
DEADLINE_S = 30.0

CANARY = "canary-4711"

Series = dict[str, dict[tuple[str, ...], float]]


def parsed(text: str) -> Series:
    """Return name of a sample -> values of its labels, in the order of their names -> value."""
    found: Series = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            series, labels = (
                found.setdefault(sample.name, {}),
                tuple(value for _, value in sorted(sample.labels.items())),
            )
            assert labels not in series, "Prometheus refuses a whole scrape for one series that is there twice"
            series[labels] = sample.value
    return found


class Exporter:
    """A collector that is scraped in this process."""

    def __init__(self, app: Any) -> None:
        """Scrape nothing yet."""
        self.registry = CollectorRegistry()
        self.registry.register(LanesCollector(app))

    def text(self) -> str:
        """Return what Prometheus gets."""
        return generate_latest(self.registry).decode()

    def series(self) -> Series:
        """Return the same by name."""
        return parsed(self.text())


@pytest.fixture
def exporter(lanes_app):
    """An exporter of the empty broker."""
    return Exporter(lanes_app)


@pytest.fixture
def scheduler(lanes_app):
    """Lanes with jobs of known costs, and a worker for each."""
    client = redis_client(lanes_app)
    for lane in LANES:
        client.zadd(f"lanes:workers:{lane.name}", {"worker": 1e15})
    return Scheduler(client)


def budget(model: str = "m", rpm: int | None = 60, **options: Any) -> Budget:
    """Return a model's own budget."""
    return Budget(f"key:{model}", model, Limits(rpm=rpm), LANES, sharers=("normal", "batch"), **options)


#: Its next request comes after a minute, longer than any test here.
SHORT = budget("short", rpm=1)


def record(app: Any, *events: JobEvent) -> None:
    """Have a worker of its own record events."""
    recorder = Recorder(app)
    for event in events:
        recorder(event)
    recorder.close()


def settled(outcome: str = "answered", seconds: float = 2.0, **facts: Any) -> JobEvent:
    """Return the end of a call in batch."""
    return JobEvent(kind="settled", lane="batch", task="t", seconds=seconds, outcome=outcome, **facts)


def test_each_lane_has_what_status_has(lanes_app, exporter):
    """Counts are those of `get_queue_stats`, lane by lane, under names that say their unit."""
    for lane in ("critical", "batch", "batch"):
        lanes_app.send_task("some.task", queue=lane)
    lanes_app.send_task("some.task", queue="batch", countdown=100)
    record(lanes_app, *(JobEvent(kind=kind, lane="batch", task="t") for kind in ("processed", "processed", "failed")))

    series, lanes = exporter.series(), get_queue_stats(lanes_app)["lanes"]
    for metric, figure in {
        "lanes_jobs_queued": "depth",
        "lanes_jobs_in_flight": "in_flight",
        "lanes_jobs_scheduled": "returning",
        "lanes_jobs_dead": "dead",
        "lanes_jobs_processed_total": "processed",
        "lanes_jobs_failed_total": "failed",
    }.items():
        assert series[metric] == {(name,): lane[figure] for name, lane in lanes.items()}, metric
    assert series["lanes_jobs_queued"][("batch",)] == 2
    assert 0 <= series["lanes_oldest_job_age_seconds"][("batch",)] <= lanes["batch"]["oldest_s"]
    assert ("normal",) not in series["lanes_oldest_job_age_seconds"]
    assert series["lanes_up"] == {(): 1}


def test_calls_are_counted_by_outcome_status_time_and_tokens(lanes_app, exporter):
    """A call is counted once under each; one that never left is none; statuses that nobody knows make no series."""
    record(
        lanes_app,
        JobEvent(kind="called", lane="batch", task="t", seconds=0.02),
        settled(tokens=(900, 40)),
        settled(tokens=(100, 20), seconds=7),
        settled("limited", status=429),
        settled("overloaded", status=529),
        settled("overloaded"),
        settled("failed", status=418),
        settled("failed", status=799),
        settled("unsent"),
    )
    series = exporter.series()
    calls = {labels[1]: value for labels, value in series["lanes_calls_total"].items() if labels[0] == "batch"}
    assert calls == {"answered": 2, "limited": 1, "overloaded": 2, "refused": 0, "failed": 2}
    errors = {labels[1]: value for labels, value in series["lanes_api_errors_total"].items() if labels[0] == "batch"}
    assert errors == {"429": 1, "529": 1, "4xx": 1, "5xx": 0, "none": 2}
    assert (
        series["lanes_tokens_total"][("input", "batch")] == series["lanes_call_tokens_sum"][("input", "batch")] == 1000
    )
    assert series["lanes_call_tokens_count"][("output", "batch")] == 2
    assert series["lanes_call_seconds_bucket"][("batch", "5.0")] == 6
    assert series["lanes_call_seconds_sum"][("batch",)] == pytest.approx(19)
    assert series["lanes_wait_seconds_count"] == {("critical",): 0, ("normal",): 0, ("batch",): 1}
    assert series["lanes_wait_seconds_sum"][("batch",)] == pytest.approx(0.02)


def waiting(series: Series) -> set[tuple[str, ...]]:
    """Return lane and reason of those that wait."""
    return {labels for labels, value in series["lanes_waiting"].items() if value}


def test_slots_are_wanted_for_a_backlog_and_none_for_what_the_budget_holds_up(scheduler, exporter):
    """The same backlog wants slots where there is room for its calls, and none where there is none."""
    for _ in range(1_000):
        scheduler.put(budget(rpm=6_000_000), BATCH)
    series = exporter.series()
    assert series["lanes_slots_wanted"][("batch",)] > 0
    assert waiting(series) == {("batch", "slot")}

    for _ in range(1_000):
        scheduler.put(SHORT, NORMAL)
    assert len(scheduler.claim(1)) == 1
    series = exporter.series()
    assert series["lanes_slots_wanted"][("normal",)] == 0
    assert waiting(series) == {("normal", "requests"), ("batch", "slot")}


def test_jobs_of_a_model_without_room_want_no_slot_beside_others(scheduler, exporter):
    """Of a lane with two models, only those jobs count whose budget has room."""
    scheduler.put(SHORT, BATCH)
    assert len(scheduler.claim(1)) == 1
    for _ in range(10):
        scheduler.put(budget("free", rpm=None), BATCH)
    alone = exporter.series()["lanes_slots_wanted"][("batch",)]
    for _ in range(5_000):
        scheduler.put(SHORT, BATCH)
    assert exporter.series()["lanes_slots_wanted"][("batch",)] == alone


def test_slots_are_wanted_where_no_worker_is(lanes_app, exporter):
    """A lane whose workers were all taken away says so, and wants some, whoever sent its jobs."""
    lanes_app.send_task("some.task", queue="batch")
    series = exporter.series()
    assert series["lanes_slots_wanted"] == {("critical",): 0, ("normal",): 0, ("batch",): 1}
    assert waiting(series) == {("batch", "no_worker")}


def test_a_shut_budget_says_why(scheduler, exporter):
    """A ``retry-after`` and a refused account are told apart, and the API's own words are left out."""
    shut, refused = budget("shut"), budget("refused")
    for each, outcome, headers in ((shut, "limited", {"retry-after": "100"}), (refused, "refused", {})):
        scheduler.put(each, BATCH)
        (held,) = scheduler.claim(1)
        end = CallEnd(None, headers, outcome, f"429 error: {CANARY}")  # type: ignore[arg-type]
        each.settle(scheduler.client, held.job.ticket, end)
    text = exporter.text()
    series = parsed(text)
    told = {labels[::2] for labels, value in series["lanes_budget_shut"].items() if value}
    assert told == {("shut", "retry_after"), ("refused", "account")}
    assert 90 < series["lanes_budget_shut_seconds"][("shut", "normal,batch")] <= 100
    assert CANARY not in text


def test_a_budget_shows_its_level_and_its_limit(scheduler, exporter):
    """What was reserved is gone from the level; the limit is the configured one."""
    scheduler.put(budget(rpm=600), BATCH)
    labels = ("requests", "m", "normal,batch", "")
    series = exporter.series()
    assert series["lanes_budget_limit_per_minute"] == {labels: 600}
    assert series["lanes_budget_level"][labels] == series["lanes_budget_capacity"][labels] == pytest.approx(9.8)
    scheduler.claim(1)
    series = exporter.series()
    assert series["lanes_budget_level"][labels] < series["lanes_budget_capacity"][labels]
    assert series["lanes_budget_calls"] == {labels[1:3]: 1}


def test_no_tenant_prompt_or_key_is_shown(lanes_app, scheduler, exporter):
    """A canary as tenant, as argument and in place of a model is nowhere, nor is the key."""
    scheduler.put(budget(f"tell me of {CANARY}, please", rpm=None, mixed=True), BATCH, tenant=CANARY)
    lanes_app.send_task("some.task", (CANARY,), queue="batch", headers={"lanes_tenant": CANARY}, argsrepr=CANARY)
    record(lanes_app, settled("failed", status=400))
    text = exporter.text()
    assert "test-key" not in text
    assert CANARY not in text


def test_the_number_of_series_is_bounded(scheduler, exporter):
    """A thousand tenants add no series, and of a thousand models 32 are shown and the others counted."""
    scheduler.put(budget("m0", rpm=None), CRITICAL)
    before = exporter.text().count("\n")
    for number in range(1_000):
        scheduler.put(budget("m0", rpm=None), BATCH, tenant=f"tenant-{number}")
    assert exporter.text().count("\n") <= before + 1  # the age of the oldest job

    for number in range(1_000):
        scheduler.know(Budget("key:*", f"m{number}", Limits(), LANES, mixed=True, sharers=("batch",)), BATCH)
        scheduler.raw.hset("lanes:budget:{key:*}:model:m" + str(number), "requests_limit", 60)
    series = exporter.series()
    assert len(series["lanes_budget_level"]) <= 32 + 1
    assert series["lanes_models_left_out"][()] == 1_000 - 32


def dumped(client: Any) -> dict[bytes, bytes]:
    """Return all keys, but for the one that has the time."""
    return {key: client.dump(key) for key in client.scan_iter() if key != b"lanes:time"}


def test_nothing_is_changed_by_a_scrape(scheduler, exporter):
    """What a scrape finds it leaves, key by key."""
    scheduler.put(budget(), BATCH)
    scheduler.claim(1)
    scheduler.put(budget(), BATCH)
    before = dumped(scheduler.raw)
    exporter.text()
    assert dumped(scheduler.raw) == before


def test_a_scrape_is_one_round_trip(scheduler, exporter, monkeypatch):
    """However many tenants and models there are, the broker is asked once."""
    for number in range(100):
        scheduler.put(budget(f"m{number}"), BATCH, tenant=f"tenant-{number}")
    exporter.text()
    sent: list[int] = []
    own = Connection.send_packed_command
    monkeypatch.setattr(
        Connection, "send_packed_command", lambda *args, **kwargs: (sent.append(1), own(*args, **kwargs))[1]
    )
    exporter.text()
    assert len(sent) == 1


def test_a_broker_that_is_away_is_a_figure(dead_port):
    """Without a broker there is one metric, `lanes_up 0`, and no error."""
    url = f"redis://127.0.0.1:{dead_port}/0"
    app = create_app(Settings(broker_url=url, result_backend=url, api_keys={"batch": SecretStr("k")}))
    assert Exporter(app).series() == {"lanes_up": {(): 0}}
    close(app)


def command(*options: str) -> list[str]:
    """Return the command line."""
    return [sys.executable, "-m", "celery", "-A", "celery_app", "lanes", "exporter", *options]


def environ(url: str, **more: str) -> dict[str, str]:
    """Return the environment of a shell that knows where the broker is."""
    path = os.pathsep.join(filter(None, [more.pop("PYTHONPATH", ""), os.environ.get("PYTHONPATH", "")]))
    return {"PATH": os.environ["PATH"], "CELERY_BROKER_URL": url, "PYTHONPATH": path, **more}


@pytest.fixture
def served(broker_url):
    """The address of a real exporter's page; the process ends by SIGTERM, at once and with 0."""
    process = subprocess.Popen(command("--port", "0"), env=environ(broker_url), stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield re.search(r"http://\S+", process.stdout.readline())[0]  # type: ignore[index]
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0
    finally:
        process.kill()
        process.communicate()


def test_the_command_serves_what_the_collector_collects(lanes_app, served, exporter):
    """Over HTTP, on loopback where nobody says otherwise, come the same names."""
    lanes_app.send_task("some.task", queue="batch")
    assert served.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(served, timeout=DEADLINE_S) as answer:  # noqa: S310 - our own loopback URL
        series = parsed(answer.read().decode())
    assert series.keys() == exporter.series().keys()
    assert series["lanes_jobs_queued"][("batch",)] == 1


def test_without_the_extra_it_says_what_to_install(broker_url, tmp_path):
    """Where prometheus_client is not installed, one line says so and how to have it."""
    hidden = tmp_path / "prometheus_client.py"
    hidden.write_text("raise ModuleNotFoundError('No module', name='prometheus_client')\n")
    environment = environ(broker_url, PYTHONPATH=str(tmp_path))
    result = subprocess.run(command(), env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "Error: lanes exporter needs prometheus_client: pip install 'ezai-lanes[exporter]'\n"


def test_a_port_that_is_taken_is_one_line(broker_url, dead_port):
    """It is not tried on another port, where Prometheus would not look."""
    result = subprocess.run(
        command("--port", str(dead_port)),
        env=environ(broker_url),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.startswith(f"Error: cannot listen on 127.0.0.1:{dead_port}: ")
    assert result.stderr.count("\n") == 1


def test_nothing_else_imports_prometheus():
    """A web process, a worker and the other commands do without."""
    code = (
        "import sys, json, celery_app, tasks, celery_app.worker.start, celery_app.cli.status, celery_app.metrics.look;"
        "print(json.dumps([name for name in sys.modules if name.startswith('prometheus_client')]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE_S, check=True, env={**os.environ}
    )
    assert json.loads(result.stdout) == []


# Celery 5.7 stores a result by a command that redis-py 8 calls deprecated.
@pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")
def test_what_a_worker_does_is_served(valkey, tmp_path):
    """Real calls, answered, limited and overloaded, are counted with their times and tokens, each once."""
    with rig(valkey, 7, tmp_path, LANES_CRITICAL_ATTEMPTS="1") as lanes:
        tokens = lanes.client.ask(**params()).usage
        with pytest.raises(LanesError):
            lanes.client.ask(**params(fault="529"))
        lanes.client.submit(lane="critical", **params(fault="429"))  # goes back to its lane again and again
        exporter = Exporter(lanes.app)

        ended = ("answered", "limited", "overloaded")
        wait_until(lambda: all(calls_of(exporter.series())[each] for each in ended), "all outcomes")
        series = exporter.series()
    assert series["lanes_calls_total"][("critical", "answered")] == 1
    assert series["lanes_tokens_total"][("input", "critical")] == tokens.input_tokens
    assert series["lanes_tokens_total"][("output", "critical")] == tokens.output_tokens
    assert series["lanes_api_errors_total"][("critical", "529")] == 1
    assert series["lanes_call_seconds_count"][("critical",)] == sum(calls_of(series).values())
    assert series["lanes_api_errors_total"][("critical", "429")] == calls_of(series)["limited"]
    assert series["lanes_wait_seconds_count"][("critical",)] == 3


def calls_of(series: Series) -> dict[str, float]:
    """Return outcome -> calls of critical."""
    return {outcome: value for (lane, outcome), value in series["lanes_calls_total"].items() if lane == "critical"}
