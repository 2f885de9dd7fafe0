"""`lanes drain`: whatever ends it, a lane that it has closed is open again, or it says how to open it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from kit.server import Server
from kit.waiting import wait_until
from pydantic import SecretStr

from celery_app import create_app
from celery_app.settings import Settings
from tests.conftest import close

if TYPE_CHECKING:
    from collections.abc import Iterator

# The command ends well within this; one that does not has hung.
DEADLINE_S = 60.0


@contextmanager
def drain(url: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Run the command; it is over when the block ends."""
    line = [sys.executable, "-m", "celery", "-A", "celery_app", "lanes", "drain", *words]
    env = {"PATH": os.environ["PATH"], "CELERY_BROKER_URL": url}
    pipe = subprocess.PIPE
    with subprocess.Popen(line, env=env, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def closed(client: Any) -> list[str]:
    """Return the lanes that take nothing."""
    names = [name.decode() for name in client.hkeys("lanes:controls")]
    return sorted(name.split("|")[1] for name in names if name.startswith("drain|"))


def test_a_lane_that_there_is_none_of_closes_no_other(client, broker_url):
    """A slip in the last name is told before the first lane is closed."""
    with drain(broker_url, "batch", "nomal") as process:
        _, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, closed(client)) == (1, [])
    assert err.startswith("Error: 'nomal' is no lane")


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)])
def test_whatever_ends_it_the_lanes_are_open_again(lanes_app, client, broker_url, number):
    """A signal that ends it opens the lanes, as Ctrl-C does, and it says so."""
    lanes_app.send_task("some.task", queue="batch")
    with drain(broker_url, "batch") as process:
        wait_until(lambda: closed(client) == ["batch"], "the lane is closed", DEADLINE_S)
        process.send_signal(number)
        _, err = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, closed(client)) == (128 + number, [])
    assert err == "Not empty yet; the lanes are open again.\n"


def test_a_broker_that_goes_away_leaves_them_closed_and_it_says_how_to_open_them(tmp_path):
    """Who drains learns that nothing has opened the lanes, and by which command to."""
    with Server(tmp_path, durable=False) as server, server.client() as client:
        app = create_app(
            Settings(broker_url=server.url, result_backend=server.url, api_keys={"batch": SecretStr("test-key")})
        )
        app.send_task("some.task", queue="batch")
        close(app)
        with drain(server.url, "batch") as process:
            wait_until(lambda: closed(client) == ["batch"], "the lane is closed", DEADLINE_S)
            server.kill()
            _, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 1
    assert "open it by: celery -A celery_app lanes drain batch --open\nError: " in err
