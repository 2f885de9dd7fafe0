"""`lanes top` as an operator has it: on a terminal, with workers at work and keys to press."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from kit.client_rig import IN_TIME_S, drop_jobs, fresh, params, rig
from kit.waiting import wait_until
from screen import DOWN, UP, OnScreen

from celery_app import controls
from celery_app.connections.redis_client import redis_client
from celery_app.metrics.stats import get_queue_stats

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kit.client_rig import Rig

    from tests.conftest import Valkey

#: Celery 5.7 stores a result by a command that redis-py 8 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

#: A database of this module's own, slots of its worker, and jobs that it works on for long.
DB, SLOTS, JOBS = 9, 4, 60

TOP = [sys.executable, "-m", "celery", "-A", "celery_app", "lanes", "top"]

#: ``ann@web1``.
WHO = re.compile(r"\S+@\S+")

#: Of letters, as a terminal is told it.
COLOUR = re.compile(rb"\x1b\[(\d+;)*3\d")


@pytest.fixture(scope="module")
def shared(valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One worker with a known limit for all tests here."""
    limits = json.dumps({"m": {"rpm": 600, "concurrency": 5}})
    with rig(valkey, DB, tmp_path_factory.mktemp("top"), slots=SLOTS, EZAI_LIMITS=limits) as made:
        yield made


@pytest.fixture
def busy(shared: Rig) -> Iterator[Rig]:
    """A worker that is busy with `batch`, whose jobs are those of two tenants."""
    fresh(shared, latency=0.5)
    for tenant, jobs in (("acme", JOBS), ("beta\x1b[2J", JOBS // 2)):
        shared.client.submit_many([params() for _ in range(jobs)], tenant=tenant)
    yield shared
    for lane in ("critical", "normal", "batch"):
        controls.resume(shared.app, lane)
    fresh(shared)
    drop_jobs(redis_client(shared.app))


def top(rig: Rig, *words: str, **env: str) -> tuple[list[str], dict[str, str]]:
    """Return a command and its environment."""
    inherited = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME", "USER") if name in os.environ}
    return [*TOP, "--interval", "0.2", *words], {**inherited, **rig.env, **env}


def printed(rig: Rig, *words: str, **env: str) -> str:
    """Return what the command prints without a terminal, having ended."""
    command, environment = top(rig, *words, **env)
    done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=IN_TIME_S)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode()


def place(rig: Rig, lane: str, where: str) -> int:
    """Return the jobs of a lane that are somewhere."""
    jobs: int = get_queue_stats(rig.app)["lanes"][lane][where]
    return jobs


def test_each_key_does_what_the_screen_says(busy: Rig) -> None:
    """Numbers and arrows choose a lane; p pauses it, the screen says who did and how to undo it; r resumes; q quits."""
    with OnScreen(*top(busy)) as screen:
        screen.until(lambda: screen.line("> critical"), "the first lane is chosen")
        for key, lane in (("2", "normal"), (DOWN, "batch"), (DOWN, "batch"), (UP, "normal"), ("1", "critical")):
            screen.type(key)
            screen.until(lambda lane=lane: screen.line(f"> {lane}"), f"{key!r} chooses {lane}")
        screen.type("3p")
        screen.until(lambda: "paused it" in screen.line("batch waits for"), "it says that it is paused")
        paused = [each for each in controls.read_controls(busy.app) if each.kind == "pause"]
        assert [each.name for each in paused] == ["batch"]
        said = " ".join(screen.lines)
        assert WHO.search(said)[0] == paused[0].by  # type: ignore[index]
        assert "end it now: celery -A celery_app lanes resume batch" in said
        screen.until(lambda: screen.line("batch is paused: it starts nothing until r"), "it says what undoes it")
        wait_until(lambda: place(busy, "batch", "in_flight") == 0, "what runs ends, and nothing starts", IN_TIME_S)
        queued = place(busy, "batch", "depth")
        assert queued > 0
        screen.type("r")
        screen.until(lambda: screen.line("batch goes on"), "it says that it goes on")
        wait_until(lambda: place(busy, "batch", "depth") < queued, "its jobs are worked on", IN_TIME_S)
        screen.type("r")
        screen.until(lambda: screen.line("batch was not paused"), "a second time it says so")
        screen.type("q")
        assert screen.ended() == 0
        assert screen.is_restored
    assert b"Traceback" not in screen.raw


def test_the_screen_shows_what_is_there(busy: Rig) -> None:
    """Depth, running, slots, budgets with the lanes' floors on the bars, tenants by name; a name moves no cursor."""
    with OnScreen(*top(busy), columns=100) as screen:
        screen.until(lambda: "tenants with" in screen.text, "there is a frame")
        screen.until(lambda: f"of {SLOTS} slots busy" in screen.text, "the worker has said how many slots it has")
        screen.until(lambda: screen.line("  batch").count("█") > 5, "the depths are drawn")
        shown = int(screen.line("  batch").split()[1])
        assert place(busy, "batch", "depth") <= shown <= JOBS + JOBS // 2
        assert re.search(r"^m +requests █*n█+b?.* of 10, 600/min", screen.text, re.MULTILINE)
        assert re.search(r"^m +calls +\S*n\S*b\S* \d of 5$", screen.text, re.MULTILINE)
        assert screen.line("acme").split()[1] == "batch"
        assert screen.line("beta\N{REPLACEMENT CHARACTER}[2J")
    assert COLOUR.search(screen.raw)


def test_it_fits_any_terminal(busy: Rig) -> None:
    """At 80 columns and at 60, on 24 lines and on fewer, and after each change of size: a lane a line, and the keys.

    With NO_COLOR there is no colour.
    """
    with OnScreen(*top(busy, NO_COLOR="1")) as screen:
        for columns, lines in ((80, 24), (60, 24), (60, 12), (130, 50), (60, 24)):
            screen.resize(columns, lines)
            screen.until(lambda: screen.lines[-1].startswith("1"), "the keys are on the last line")
            screen.until(lambda: screen.lines[0].partition("  ")[2].startswith("lanes of"), "a title on the first")
            screen.until(lambda: "▁" in screen.line("> critical") and "█" in screen.line("  batch"), "sparklines")
            assert [line.split()[0] for line in screen.lines[3:6]] == [">", "normal", "batch"]
            assert {"queued", "running", "oldest", "p99", "depth", "wait"} <= set(screen.lines[2].split())
    assert not COLOUR.search(screen.raw)


def test_without_a_terminal_it_prints_one_frame_and_ends(busy: Rig) -> None:
    """Redirected, and on one that cannot move its cursor; in ASCII where that is all there is."""
    text = printed(busy, PYTHONUTF8="0", PYTHONIOENCODING="ascii", LC_ALL="C")
    assert "\x1b" not in text
    assert [line.split()[0] for line in text.splitlines()[3:6]] == ["critical", "normal", "batch"]
    assert re.search(r"^batch waits for ", text, re.MULTILINE)
    assert re.search(r"^acme +batch +\d+ #+$", text, re.MULTILINE)
    with OnScreen(*top(busy, TERM="dumb"), columns=100) as screen:
        assert screen.ended() == 0
        assert screen.line("  batch")
    assert b"\x1b" not in screen.raw


def test_json_is_a_document_per_refresh(busy: Rig) -> None:
    """One line each, with all that the screen shows, until whoever reads has enough."""
    command, env = top(busy, "--json")
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        looks = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=IN_TIME_S)
    seen = looks[0]
    assert seen["lanes"].keys() == {"critical", "normal", "batch"}
    assert seen["lanes"]["batch"]["depth"] > 0
    assert (seen["workers"], seen["slots"], seen["lanes"]["batch"]["slots"]) == (1, SLOTS, SLOTS)
    assert {"kind", "words", "advice"} == seen["lanes"]["batch"]["waiting_for"][0].keys()
    assert seen["tenants"][0] | {"jobs": 0} == {"tenant": "acme", "lane": "batch", "jobs": 0}
    assert looks[0]["at"] < looks[1]["at"] < looks[2]["at"]
    assert (process.returncode, err) == (0, b"")


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, 0),
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.slow),
        pytest.param(signal.SIGQUIT, 131, marks=pytest.mark.slow),
    ],
)
def test_whatever_ends_it_the_terminal_is_restored(shared: Rig, number: signal.Signals, code: int) -> None:
    """Its modes, its other screen and its cursor are as they were, and nobody sees a traceback."""
    with OnScreen(*top(shared)) as screen:
        screen.until(lambda: screen.line("> critical"), "there is a frame")
        assert not screen.is_restored
        screen.type("\x03") if number == signal.SIGINT else screen.signal(number)
        assert screen.ended() == code
        assert screen.is_restored
    assert b"Traceback" not in screen.raw


@pytest.mark.slow
def test_control_z_gives_the_shell_its_terminal(shared: Rig) -> None:
    """Stopped, the shell's line editing is back; after `fg` so is the screen, and its keys work."""
    command, env = top(shared)
    with OnScreen(["sh", "-i"], {**env, "PS1": "prompt> ", "ENV": ""}) as screen:
        screen.until(lambda: "prompt>" in screen.text, "the shell is there")
        screen.type(shlex.join(command) + "\n")
        screen.until(lambda: screen.line("> critical"), "there is a frame")
        screen.type("\x1a")
        screen.until(lambda: screen.raw.rstrip().endswith(b"prompt>"), "the shell is back")
        assert screen.is_restored
        frames = screen.raw.count(b"> critical")
        screen.type("fg\n")
        screen.until(lambda: screen.raw.count(b"> critical") > frames, "the screen is back")
        screen.type("2")
        screen.until(lambda: screen.line("> normal"), "its keys work")
        screen.type("q")
        screen.until(lambda: screen.raw.rstrip().endswith(b"prompt>"), "the shell is back")
        screen.type("exit\n")
        assert screen.ended() == 0
