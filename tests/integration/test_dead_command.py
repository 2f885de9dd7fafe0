"""``celery -A proj lanes dead`` as an operator uses it, with a worker and an API behind it."""

import json
import os
import pty
import subprocess
import sys
from typing import Any

import pytest
from kit.client_rig import IN_TIME_S, Rig, params, the_dead
from kit.dead_rig import ATTEMPTS, KEY, dead_rig, died, down, up_again
from kit.waiting import wait_until

from celery_app import dead_letters
from celery_app.cli import output

#: Celery 5.7 stores a result by a command that redis-py 8 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

#: Seconds within which a command ends; one that does not has hung.
DEADLINE_S = 60.0

PROMPT = "Rumpelstiltskin is the patient's name"
CANARY = "Rumpelstiltskin"


@pytest.fixture(scope="module")
def shared(valkey, tmp_path_factory):
    """One worker for all tests."""
    with dead_rig(valkey, tmp_path_factory.mktemp("worker")) as up:
        yield up


@pytest.fixture
def up(shared):
    """The same, fresh for each test, with the API down."""
    return down(shared)


def run(broker: str, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    line = [sys.executable, "-m", "celery", "-A", "celery_app", "lanes", "dead", *words]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", ""), "CELERY_BROKER_URL": broker}
    options = {"stdin": subprocess.DEVNULL, **options}
    return subprocess.run(line, env=env, capture_output=True, text=True, timeout=DEADLINE_S, check=False, **options)


def dead(up: Rig, *words: str) -> str:
    """Return what the command prints when all goes well."""
    ended = run(up.env["CELERY_BROKER_URL"], *words)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


def test_an_operator_finds_reads_and_replays_what_died(up):
    """A job whose attempts are used up is listed and shown; replayed once the API is back, it gets its answer."""
    result, _ = died(up)
    (listed,) = json.loads(dead(up, "list", "--json"))
    assert (listed["id"], listed["lane"], listed["tries"]) == (result.id, "critical", ATTEMPTS)
    assert (listed["task"], listed["model"], listed["tenant"]) == ("tasks.create_message", "m", "")
    assert f"after {ATTEMPTS} attempts: The API refused the call: 500" in listed["reason"]
    assert listed["submitted_at"] <= listed["died_at"]
    heading, row = dead(up, "list").splitlines()[:2]
    assert heading.split() == ["id", "lane", "task", "tenant", "age", "tries", "reason"]
    assert row.startswith(result.id)

    shown = dead(up, "show", result.id)
    for words in ("critical", "tasks.create_message", "ApiError: The API refused the call: 500"):
        assert words in shown
    assert json.loads(dead(up, "show", result.id, "--payload")) == {"args": [], "kwargs": params()}

    up_again(up)
    assert json.loads(dead(up, "replay", result.id, "--json")) == {
        "replayed": 1,
        "gone": 0,
        "untold": 0,
        "name_taken": 0,
        "lane_full": {},
    }
    wait_until(lambda: up.app.AsyncResult(result.id).state == "SUCCESS", "its answer")
    assert dead(up, "list") == "no dead letters\n"
    assert json.loads(dead(up, "list", "--json")) == []


def test_a_kind_of_them_is_replayed_or_purged_at_once(up):
    """What is said chooses; a list that is not whole says so; nothing is purged without a yes."""
    up.api.control(server_error_rate=0.0, spend_limit=True)
    for _ in range(2):
        assert up.client.submit("critical", **params(), tenant="ada").get(timeout=IN_TIME_S, propagate=False)
    up.app.send_task("dead.part", ("x",), queue="batch")
    the_dead(up, 3)

    broker = up.env["CELERY_BROKER_URL"]
    some = run(broker, "list", "--limit", "2", "--json")
    assert (len(json.loads(some.stdout)), "more than these 2" in some.stderr) == (2, True)
    chosen = ("--reason", "refuses the ACCOUNT", "--lane", "critical", "--tenant", "ada", "--since", "1h")
    assert len(json.loads(dead(up, "list", "--json", *chosen, "--task", "tasks.*"))) == 2
    assert json.loads(dead(up, "list", "--json", "--before", "1h")) == []
    up_again(up)
    assert dead(up, "replay", *chosen) == "2 replayed\n"
    assert [letter.task for letter in dead_letters.find(up.app)] == ["dead.part"]

    refused = run(broker, "purge", "--all")
    assert (refused.returncode, "say --yes" in refused.stderr, len(dead_letters.find(up.app))) == (2, True, 1)
    assert dead(up, "purge", "--all", "--yes") == "1 purged\n"
    assert dead_letters.find(up.app) == []


def test_on_a_terminal_a_purge_asks(up):
    """Whatever is not a yes is a no."""
    died(up)
    ours, theirs = pty.openpty()
    try:
        for answer, code, left in ((b"\n", 1, 1), (b"y\n", 0, 0)):
            os.write(ours, answer)
            ended = run(up.env["CELERY_BROKER_URL"], "purge", "--all", stdin=theirs)
            assert "Drop 1 dead letters for good?" in ended.stderr
            assert (ended.returncode, len(dead_letters.find(up.app))) == (code, left)
    finally:
        os.close(ours)
        os.close(theirs)


#: What makes no sense -> what is said of it.
GARBAGE = {
    ("show", "nobody"): (1, "Error: There is no dead letter 'nobody'"),
    ("show", "nobody", "--payload"): (1, "Error: There is no dead letter 'nobody'"),
    ("replay", "nobody"): (1, "Error: There is no dead letter 'nobody'"),
    ("purge", "nobody", "--yes"): (1, "Error: There is no dead letter 'nobody'"),
    ("list", "--since", "yesterday"): (2, "'yesterday' is no duration: write 90s, 10m, 2h or 7d"),
    ("list", "--since", "-1h"): (2, "'-1h' is no duration"),
    ("list", "--before", "1e9h"): (2, "'1e9h' is no duration"),
    ("list", "--limit", "0"): (2, "'--limit'"),
    ("replay",): (2, "say which"),
    ("purge", "--yes"): (2, "say which"),
    ("replay", "--all", "--lane", "batch"): (2, "say which"),
    ("replay", "one", "--lane", "batch"): (2, "say which"),
}


@pytest.mark.parametrize("words", GARBAGE, ids=" ".join)
def test_what_makes_no_sense_is_told(broker_url, words):
    """In a line, on stderr, with an exit code, and without a traceback."""
    ended = run(broker_url, *words)
    code, said = GARBAGE[words]
    assert (ended.returncode, ended.stdout) == (code, "")
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_dead_broker_is_one_line(dead_port):
    """Without its password."""
    ended = run(f"redis://:hidden@127.0.0.1:{dead_port}/0", "list")
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (1, "", 1)
    assert "hidden" not in ended.stderr


def test_prompts_and_keys_are_in_nothing_but_the_payload(up):
    """Neither a call's nor those that a project's own task puts into its error, and so into its traceback."""
    called, _ = died(up, text=PROMPT)
    own = up.app.send_task("dead.part", (CANARY,), queue="batch")
    the_dead(up, 2)
    ids = (called.id, own.id)
    said = [dead(up, "list"), dead(up, "list", "--json"), repr(dead_letters.find(up.app))]
    said += [dead(up, "show", each, *more) for each in ids for more in ((), ("--json",))]
    said += [repr(dead_letters.get(each, up.app)) for each in ids]
    assert "dead_tasks.py" in said[-3]  # its traceback
    assert "ValueError" in said[-1]
    for each in ids:
        assert CANARY in dead(up, "show", each, "--payload")
    up_again(up)
    said += [dead(up, "replay", own.id), dead(up, "purge", called.id, "--yes")]
    for text in said:
        assert CANARY not in text
        assert KEY not in text


def test_names_cannot_order_a_terminal_about(up):
    """A task's name is whatever its producer wrote."""
    up.app.send_task("dead.\x1b[2Jpart", queue="batch")
    the_dead(up)
    (letter,) = dead_letters.find(up.app)
    for shown in (dead(up, "list"), dead(up, "show", letter.id)):
        assert "\x1b" not in shown
        assert "[2Jpart" in shown


def test_who_takes_long_says_how_far_it_is(monkeypatch, capsys):
    """Nothing within two seconds; then a line at a time, on stderr."""
    line = output.ProgressLine("replaying")
    line(1, 10)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(output, "_SILENT", 0.0)
    line = output.ProgressLine("replaying")
    line(1_000, 10_000)
    line(2_000, 10_000)
    line.end()
    assert capsys.readouterr() == ("", "replaying: 1,000 of 10,000\n")
