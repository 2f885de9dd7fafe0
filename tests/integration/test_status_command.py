import json
import os
import select
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from celery_app.budget import CallEnd, Cost, budget_for
from celery_app.connections.redis_client import redis_client
from celery_app.metrics.stats import get_queue_stats
from celery_app.settings import settings_of

# The command ends well within this; one that does not has hung.
DEADLINE_S = 20.0
# What a person may have to wait for the news that the broker is dead.
BAD_NEWS_S = 3.0


def command(*options: str, app: str = "celery_app") -> list[str]:
    """Return the command line."""
    return [sys.executable, "-m", "celery", "-A", app, "lanes", "status", *options]


def environ(url: str) -> dict[str, str]:
    """Return the environment of a shell that knows where the broker is."""
    return {"PATH": os.environ["PATH"], "CELERY_BROKER_URL": url}


def seconds_to_start() -> float:
    """Return what a command takes that does nothing: a machine that has more to do takes longer."""
    begun = time.monotonic()
    run(command("--help"), "redis://127.0.0.1:1/0")
    return time.monotonic() - begun


def run(line: list[str], url: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        line, env=environ(url), capture_output=True, text=True, timeout=DEADLINE_S, check=False, **options
    )


def test_json_is_what_the_function_returns(lanes_app, broker_url):
    """``--json`` prints get_queue_stats(), and nothing else."""
    lanes_app.send_task("some.task", queue="batch")
    result = run(command("--json"), broker_url)
    printed, expected = json.loads(result.stdout), get_queue_stats(lanes_app)
    ages = printed["lanes"]["batch"].pop("oldest_s"), expected["lanes"]["batch"].pop("oldest_s")
    assert printed == expected
    assert ages[0] == pytest.approx(ages[1], abs=DEADLINE_S)
    assert (result.returncode, result.stderr) == (0, "")


def test_the_table_has_a_line_per_lane(lanes_app, broker_url):
    """Each lane is one line below one line of headings, however narrow the place it is printed to."""
    for _ in range(1_234):
        lanes_app.send_task("some.task", queue="batch")
    result = run(command(), broker_url)
    heading, *lines, reason = result.stdout.rstrip("\n").split("\n")
    assert [line.split()[:2] for line in lines] == [["critical", "0"], ["normal", "0"], ["batch", "1,234"]]
    assert reason == "batch waits: no worker serves batch"
    words = ("lane", "queued", "oldest", "in flight", "returning", "dead", "done", "failed", "per min", "p50", "p95")
    assert [word for word in words if word not in heading] == []
    assert result.returncode == 0


def test_a_dead_broker_is_one_line():
    """Without a broker the command says so in one line, without the password, and fails within 3 s."""
    allowed = BAD_NEWS_S + 2 * seconds_to_start()
    begun = time.monotonic()
    result = run(command(), "redis://:secret@127.0.0.1:1/0")
    assert time.monotonic() - begun < allowed
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    assert "127.0.0.1:1" in result.stderr
    assert "secret" not in result.stderr


def test_a_project_without_lanes_is_told_what_to_do(tmp_path):
    """An application without lanes gets the advice to install them, not a traceback."""
    (tmp_path / "plain.py").write_text("from celery import Celery\napp = Celery('plain')\n")
    result = run(command(app="plain"), "redis://127.0.0.1:1/0", cwd=tmp_path)
    assert result.returncode == 1
    assert "celery_app.install(app)" in result.stderr
    assert "Traceback" not in result.stderr


def test_watching_ends_with_control_c(broker_url):
    """``--watch`` looks again and again, sees what has changed, and Ctrl-C ends it with 0 and without a traceback."""
    pipe = subprocess.PIPE
    line = command("--json", "--watch")
    with subprocess.Popen(line, env=environ(broker_url), stdout=pipe, stderr=pipe, text=True) as process:
        try:
            assert process.stdout is not None
            looks = [json.loads(process.stdout.readline()) for _ in range(2)]
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=DEADLINE_S)
        finally:
            process.kill()
    assert looks[0].keys() == looks[1].keys() == {"queue_depth", "lanes"}
    assert (process.returncode, err) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_table_can_be_watched(broker_url, number):
    """On a terminal the table stays in its place until Ctrl-C or SIGTERM, and then the cursor is back."""
    leader, follower = os.openpty()
    env = {**environ(broker_url), "TERM": "xterm", "COLUMNS": "160"}
    with subprocess.Popen(command("--watch"), env=env, stdout=follower, stderr=follower) as process:
        try:
            seen = b""
            while seen.count(b"critical") < 3:
                seen += os.read(leader, 65_536)
            process.send_signal(number)
            while b"\x1b[?25h" not in seen and select.select([leader], (), (), DEADLINE_S)[0]:
                seen += os.read(leader, 65_536)
            assert process.wait(DEADLINE_S) == 0
        finally:
            process.kill()
            os.close(leader)
            os.close(follower)
    assert seen.rfind(b"\x1b[?25h") > seen.rfind(b"\x1b[?25l")
    assert b"\x1b[1A" in seen  # it went up, to draw over the last look
    assert b"Traceback" not in seen


def test_a_lane_whose_budget_the_api_has_shut_says_so(lanes_app, broker_url):
    """Below the table stands what an operator looks for first, with the reason and without the password."""
    lanes_app.send_task("some.task", queue="batch")
    settings, client = settings_of(lanes_app), redis_client(lanes_app)
    lane = settings.lane("batch")
    assert lane is not None
    budget = budget_for(settings, lane, "m")
    taken = budget.reserve(client, lane, Cost(), claim=("a call", "of this test:call"))
    reason = "429 rate_limit_error: slow down"
    settled = budget.settle(client, taken.ticket, CallEnd(None, {"retry-after": "1200"}, "limited", reason))
    assert settled.shut
    last = run(command(), broker_url).stdout.rstrip("\n").split("\n")[-1]

    assert last.startswith("batch waits for the API, which has shut the budget of m for another ")
    assert f"({reason}); no worker serves batch" in last
