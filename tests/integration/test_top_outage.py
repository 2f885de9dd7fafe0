"""`lanes top` while the broker is away: it says so, and sees it come back."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from kit.broker import Broker
from kit.server import Server
from screen import IN_TIME_S, OnScreen

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOP = [sys.executable, "-m", "celery", "-A", "celery_app", "lanes", "top", "--interval", "0.2"]

JOBS = 7


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server of its own that keeps what it has, with a few jobs."""
    with Server(tmp_path / "server") as made, Broker(tmp_path, made.url) as broker:
        for _ in range(JOBS):
            broker.send("some.task")
        yield made


def environ(server: Server) -> dict[str, str]:
    """Return the environment of the command."""
    return {"PATH": os.environ["PATH"], "CELERY_BROKER_URL": server.url}


def run(server: Server, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, without a terminal."""
    env = environ(server)
    return subprocess.run([*TOP, *words], env=env, capture_output=True, timeout=IN_TIME_S, check=False, text=True)


def is_away(screen: OnScreen) -> bool:
    """Whether the screen says that the broker is away, since when, and how old the figures are."""
    said = re.match(r"BROKER AWAY for \d+\.\d s, the figures are \d+\.\d s old", screen.lines[0])
    return bool(said) and "127.0.0.1" in screen.lines[1]


def shows_jobs(screen: OnScreen) -> bool:
    """Whether the last figures are on the screen."""
    return screen.line("  batch").split()[1:2] == [str(JOBS)]


def test_the_screen_says_that_the_broker_is_away_and_recovers(server: Server) -> None:
    """Killed: the last figures stay, with their age; keys work, and p says why it does not; back: all is as before."""
    with OnScreen(TOP, environ(server), columns=100) as screen:
        screen.until(lambda: shows_jobs(screen), "there are figures")
        server.kill()
        screen.until(lambda: is_away(screen) and shows_jobs(screen), "it says so, and keeps the figures")
        screen.type("2p")
        screen.until(lambda: screen.line("> normal"), "a lane can be chosen")
        screen.until(lambda: "127.0.0.1" in screen.lines[-2], "what p came to is said above the keys")
        server.start()
        screen.until(lambda: "lanes of" in screen.lines[0] and shows_jobs(screen), "the broker is back")
        assert server.process is not None
        server.process.send_signal(signal.SIGSTOP)
        try:
            screen.until(lambda: is_away(screen), "a broker that is mute is away, too")
            screen.type("q")
            assert screen.ended() == 0
        finally:
            server.process.send_signal(signal.SIGCONT)
        assert screen.is_restored
    assert b"Traceback" not in screen.raw


@pytest.mark.slow
def test_without_a_terminal_the_broker_is_missed_in_one_line(server: Server) -> None:
    """One frame fails with a line, as `status` does; a stream of JSON tells the error, and goes on once it is back."""
    once = run(server, "--json", "--once")
    assert json.loads(once.stdout)["lanes"]["batch"]["depth"] == JOBS
    server.kill()
    for words in ((), ("--json", "--once")):
        done = run(server, *words)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.count("\n") == 1
    with subprocess.Popen([*TOP, "--json"], env=environ(server), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()).keys() == {"error"}
        server.start()
        looks = (json.loads(line) for line in process.stdout)
        assert next(look for look in looks if "error" not in look)["lanes"]["batch"]["depth"] == JOBS
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=IN_TIME_S)
    assert process.returncode == 0
