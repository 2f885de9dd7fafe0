"""Three projects that were alive before the lanes came, each with a suite that knows nothing of them.

A suite passes on stock Celery, and it passes unchanged once `install(app)` is in the project's own celery.py; the
switch is one variable that the project reads there. Nothing else differs between the two runs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Valkey

LIVING = Path(__file__).parent / "living"

#: Databases of the server: the projects' broker, their results, and another broker that one of them changes to.
BROKER, RESULTS, OTHER = 10, 11, 12

#: Seconds for a suite; the longest takes 65 s on two idle cores.
SUITE_DEADLINE = 600

PROJECTS = ("plain", "flask_site", "django_site")

#: Ends the suite when this process has ended, however it did; the suite's own processes end with it.
_KILL_WHEN_WE_ARE_GONE = 'cat >/dev/null; kill -KILL "$0"'


def _environment(valkey: Valkey, *, lanes: bool) -> dict[str, str]:
    """Return what both runs have; the lanes only add a key that opens nothing."""
    ours = ("CELERY_", "EZAI_", "LANES_", "PYTEST_", "PYTHONPATH", "WITH_LANES")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    given = {
        "SHOP_BROKER": valkey.url(BROKER),
        "SHOP_BACKEND": valkey.url(RESULTS),
        "SHOP_OTHER": valkey.url(OTHER),
        "SITE_BROKER": valkey.url(BROKER),
    }
    return {**inherited, **given, **({"WITH_LANES": "1", "EZAI_API_KEY": "opens-nothing"} if lanes else {})}


def _run(valkey: Valkey, suite: Path, *, lanes: bool) -> None:
    for db in (BROKER, RESULTS, OTHER):
        with valkey.client(db) as client:
            client.flushdb()
    command = [sys.executable, "-m", "pytest", "-c", str(LIVING / "pytest.ini"), str(suite)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, env=_environment(valkey, lanes=lanes), **pipes) as running:
        watch = ["sh", "-c", _KILL_WHEN_WE_ARE_GONE, str(running.pid)]
        with subprocess.Popen(watch, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as watcher:
            try:
                said, _ = running.communicate(timeout=SUITE_DEADLINE)
            finally:
                running.kill()
                watcher.kill()
    assert running.returncode == 0, f"{'with the lanes' if lanes else 'on stock'}:\n{said[-6000:]}"


@pytest.mark.parametrize("project", PROJECTS)
def test_a_project_goes_on_as_it_was(valkey: Valkey, project: str) -> None:
    """The core of each project's suite passes with the lanes installed."""
    _run(valkey, LIVING / project / "suite_core.py", lanes=True)


@pytest.mark.slow
@pytest.mark.timeout(SUITE_DEADLINE)
@pytest.mark.parametrize("project", PROJECTS)
def test_the_suites_are_right_about_stock_celery(valkey: Valkey, project: str) -> None:
    """The same cores pass without the lanes: what they ask for is what Celery does."""
    _run(valkey, LIVING / project / "suite_core.py", lanes=False)


@pytest.mark.slow
@pytest.mark.timeout(SUITE_DEADLINE)
@pytest.mark.parametrize("lanes", [False, True], ids=["stock", "lanes"])
@pytest.mark.parametrize("project", PROJECTS)
def test_kills_beat_and_pools_are_as_they_were(valkey: Valkey, project: str, lanes: bool) -> None:
    """What takes its time passes both ways, too: killed workers, schedules, every pool."""
    _run(valkey, LIVING / project / "suite_long.py", lanes=lanes)


def test_a_package_that_is_only_installed_does_nothing(valkey: Valkey, tmp_path: Path) -> None:
    """Bare `celery` commands of the same environment are Celery's own, whatever their broker; nothing of ours loads."""
    environment = _environment(valkey, lanes=False)
    foreign = {**environment, "CELERY_BROKER_URL": "amqp://nobody@127.0.0.1:1//", "LANES_PORT": "tcp://10.0.0.1:80"}
    for arguments in (
        ("report",),
        ("-b", "amqp://nobody@127.0.0.1:1//", "report"),
        ("worker", "--help"),
        ("--version",),
    ):
        command = [sys.executable, "-X", "importtime", "-m", "celery", *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=foreign, capture_output=True, text=True, check=False, timeout=SUITE_DEADLINE
        )
        assert done.returncode == 0, done.stderr[-2000:]
        loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
        assert not {"celery_app.app", "celery_app.settings", "tasks", "anthropic"} & loaded
        assert not [line for line in done.stdout.splitlines() if "lane" in line.lower() and "report" in arguments]
