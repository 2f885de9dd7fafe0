"""``celery -A proj lanes why`` as an operator uses it: a reason and what to do, in words and in JSON.

test_why_reasons.py has all reasons; here are those that need no worker, or no broker, and what the command prints.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from kit.client_rig import Rig, nothing_set, params, rig, the_dead
from kit.dead_rig import dead_rig, died, down

from celery_app import controls
from celery_app.budget import CallEnd, Cost, budget_for
from celery_app.client import Client
from celery_app.connections.redis_client import redis_client
from celery_app.settings import settings_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Valkey

#: Celery 5.7 stores a result by a command that redis-py 8 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

#: Seconds within which a command ends; one that does not has hung.
DEADLINE_S = 60.0

CANARY = "Rumpelstiltskin"

#: Seconds that a call takes which has to be there while a command looks.
LONG = 600.0


def run(broker: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end; neither a prompt nor a key is in what it says."""
    line = [sys.executable, "-m", "celery", "-A", "celery_app", "lanes", "why", *words]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", ""), "CELERY_BROKER_URL": broker}
    done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert "Traceback" not in done.stderr
    for secret in (CANARY, "sk-test", "sk-canary", "s3cret"):
        assert secret not in done.stdout + done.stderr
    return done


def told(broker: str, what: str) -> dict[str, Any]:
    """Return what the command says of a lane or a job, in JSON; in words it says the same."""
    done = run(broker, what, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    printed = json.loads(done.stdout)
    found: dict[str, Any] = printed.get(what, printed)
    words = run(broker, what).stdout
    for each in found["waiting_for"]:
        assert each["advice"].partition(": ")[0].split(";")[0] in words
    return found


def the_reason(found: dict[str, Any]) -> tuple[str, str, str]:
    """Return the only reason: its kind, its words and what to do."""
    (reason,) = found["waiting_for"]
    return reason["kind"], reason["words"], reason["advice"]


@pytest.fixture(scope="module")
def shared(valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One worker with one slot for all tests."""
    with rig(valkey, 14, tmp_path_factory.mktemp("worker"), slots=1) as up:
        yield up


@pytest.fixture
def up(shared: Rig) -> Iterator[Rig]:
    """The same, fresh for each test, and with nothing set."""
    with nothing_set(shared):
        yield shared


def submit(up: Rig, lane: str = "batch", **more: Any) -> str:
    """Submit a job whose prompt must not be seen; return its id."""
    return str(up.client.submit(lane, **params(CANARY), **more).id)


def test_a_paused_lane_says_who_paused_it_and_how_to_resume_it(up: Rig) -> None:
    """Of the lane and of the job: until when, by whom, and the command that ends it."""
    controls.pause(up.app, "batch", for_s=LONG, by="ann@web1")
    job = submit(up)
    for what in ("batch", job):
        kind, words, advice = the_reason(told(up.env["CELERY_BROKER_URL"], what))
        assert kind == "paused"
        assert words.startswith("the end of the pause by ann@web1, in ")
        assert advice == "end it now: celery -A celery_app lanes resume batch"


def test_all_lanes_are_told_where_nobody_names_one(up: Rig) -> None:
    """An idle lane waits for nothing."""
    done = run(up.env["CELERY_BROKER_URL"])
    assert [line.partition(":")[0] for line in done.stdout.splitlines() if not line.startswith(" ")] == [
        "critical",
        "normal",
        "batch",
    ]
    assert done.stdout.count("waits for nothing") == 3


def test_an_unknown_job_is_an_error(up: Rig) -> None:
    """What is neither a lane nor a job ends with 1, and with the lanes there are."""
    done = run(up.env["CELERY_BROKER_URL"], "bacth")
    assert (done.returncode, done.stdout) == (1, "")
    assert "critical, normal, batch" in done.stderr
    assert json.loads(run(up.env["CELERY_BROKER_URL"], "bacth", "--json").stdout)["state"] == "unknown"


def test_a_lane_without_a_worker_says_how_to_start_one(lanes_app: Any, broker_url: str) -> None:
    """Of the lane and of the job: the whole command."""
    job = lanes_app.send_task("some.task", args=[CANARY], queue="batch").id
    for what in ("batch", job):
        kind, words, advice = the_reason(told(broker_url, what))
        assert (kind, words) == ("no_worker", "no worker serves batch")
        assert advice == "start one: celery -A celery_app worker -Q batch -n batch@%h -c 20"


def test_a_budget_that_the_api_has_shut_is_told_with_its_words(lanes_app: Any, broker_url: str) -> None:
    """Of the lane and of the job: until when, and the API's reason; and that it has no worker, too."""
    settings, client = settings_of(lanes_app), redis_client(lanes_app)
    lane = settings.lane("batch")
    assert lane is not None
    budget = budget_for(settings, lane, "m")
    client.hset("lanes:terms", "batch:m", budget.terms)
    taken = budget.reserve(client, lane, Cost(), claim=("a call", "of this test:call"))
    reason = "429 rate_limit_error: slow down"
    assert budget.settle(client, taken.ticket, CallEnd(None, {"retry-after": "1200"}, "limited", reason)).shut
    job = Client(lanes_app).submit("batch", **params(CANARY)).id
    for what in ("batch", job):
        shut, unserved = told(broker_url, what)["waiting_for"]
        assert (shut["kind"], unserved["kind"]) == ("shut", "no_worker")
        assert shut["words"].startswith("the API, which has shut the budget of m for another ")
        assert shut["words"].endswith(f"({reason})")


def test_a_broker_that_is_away_is_the_reason(dead_port: int) -> None:
    """In words and in JSON, with 1, and without its password."""
    url = f"redis://:s3cret@127.0.0.1:{dead_port}/0"
    done = run(url, "batch")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"127.0.0.1:{dead_port}" in done.stderr
    assert "start Redis" in done.stderr
    done = run(url, "--json")
    assert done.returncode == 1
    assert the_reason(json.loads(done.stdout))[0] == "broker"


def test_a_dead_letter_is_told_with_how_to_see_it(valkey: Valkey, tmp_path: Any) -> None:
    """Of the job and of its lane."""
    with dead_rig(valkey, tmp_path, db=15) as up:
        down(up)
        result, _ = died(up)
        assert the_dead(up)
        found = told(up.env["CELERY_BROKER_URL"], result.id)
        assert (found["state"], found["waiting_for"]) == ("dead", [])
        assert found["advice"] == f"celery -A celery_app lanes dead show {result.id}"
        lane = told(up.env["CELERY_BROKER_URL"], "critical")
        assert lane["advice"].endswith("celery -A celery_app lanes dead list --lane critical")
