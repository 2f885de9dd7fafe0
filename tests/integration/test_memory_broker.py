"""``memory://``: enough of a broker for eager tests, and for nothing else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

#: Seconds for a process of Celery's to start and end, on a loaded machine.
IN_TIME_S = 60.0

#: A project as its conftest configures it.
PROJECT = """\
from celery import Celery

from celery_app import install
from tasks import LaneTask

app = Celery("proj", set_as_current=False)
app.conf.update(broker_url="memory://", task_always_eager=True)
install(app)


@app.task(base=LaneTask)
def double(number):
    return 2 * number
"""


@pytest.fixture
def environ():
    """An environment in which nothing is configured."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("CELERY_", "EZAI_", "LANES_"))}


def run(folder: Path, environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python where the project is."""
    (folder / "proj.py").write_text(PROJECT)
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=IN_TIME_S,
        check=False,
    )


def test_an_eager_test_needs_no_broker(tmp_path, environ):
    """A lane task that runs where it is called gives its result, with no server anywhere."""
    script = "from proj import double; print(double.apply_async((21,), queue='batch').get(), double.delay(1).get())"

    result = run(tmp_path, environ, "-c", script)

    assert (result.returncode, result.stdout) == (0, "42 2\n"), result.stderr


def test_sending_is_refused_in_one_line(tmp_path, environ):
    """What would be sent to nobody is an exception where it is sent."""
    script = (
        "from proj import app, double; from celery_app.errors import InvalidSettings\n"
        "app.conf.task_always_eager = False\n"
        "try: double.apply_async((21,), queue='batch')\n"
        "except InvalidSettings as error: print(error)"
    )

    result = run(tmp_path, environ, "-c", script)

    assert result.stdout.count("\n") == 1, result.stderr
    assert "memory://" in result.stdout
    assert "need Redis or Valkey" in result.stdout


@pytest.mark.parametrize("command", [["worker", "-Q", "critical"], ["lanes", "status"], ["lanes", "up", "--no-flower"]])
def test_a_command_for_the_lanes_is_refused_in_one_line(command, tmp_path, environ):
    """A worker that would wait for ever, and figures of nothing, say so instead."""
    result = run(tmp_path, environ, "-W", "ignore", "-m", "celery", "-A", "proj", *command)

    assert result.returncode == 1
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1, result.stderr
    assert "need Redis or Valkey" in errors[0]
    assert "Traceback" not in result.stderr
