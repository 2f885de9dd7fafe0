"""What `make` starts ends with it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kit.processes import running
from kit.waiting import wait_until

ROOT = Path(__file__).parents[2]
#: Seconds until everything runs, and until everything is gone, on a loaded CI machine.
START_S, STOP_S = 90.0, 20.0

#: Target -> its arguments, and how many processes it starts at least: the command, guard, broker, two workers, and the
#: web server.
TARGETS = {
    "django-chat": ("", 6),
    "django-chat-asgi": ("", 6),
    "flask-chat": ("", 6),
    "up": ("--no-flower", 5),
    "demo": ("--no-flower", 5),
}
SLOW = {"django-chat-asgi", "flask-chat", "up"}


def descendants(pid: int) -> set[int]:
    """Return all that a process has started, and what these have."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)  # noqa: S607
    parents = {int(child): int(parent) for child, parent in (line.split() for line in listed.stdout.splitlines())}
    found: set[int] = set()
    while more := {child for child, parent in parents.items() if parent in {pid, *found}} - found:
        found |= more
    return found


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "target", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in TARGETS]
)
def test_a_signal_to_make_ends_all_that_it_started(target, number, tmp_path):
    """SIGTERM to make alone, or a terminal's SIGHUP, ends workers, broker, API and web server within seconds."""
    arguments, processes = TARGETS[target]
    venv = os.path.relpath(sys.prefix, ROOT)
    # What the target needs is installed where the tests run.
    installed = [option for name in (".demo", ".examples", ".dev") for option in ("-o", f"{venv}/{name}")]
    ours = ("CELERY_", "EZAI_", "LANES_", "FLOWER_", "DJANGO_", "MAKE", "MFLAGS")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    with (
        (tmp_path / "output").open("wb") as output,
        subprocess.Popen(
            ["make", *installed, f"VENV={venv}", f"ARGS={arguments}", target],  # noqa: S607
            env={**environ, "TMPDIR": str(tmp_path)},
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
        ) as make,
    ):
        try:
            wait_until(lambda: len(descendants(make.pid)) >= processes, f"{target} has started its processes", START_S)
            started = descendants(make.pid)
            begun = time.monotonic()
            # A terminal that goes away tells the whole group; SIGTERM comes from a supervisor that knows one process.
            os.killpg(make.pid, number) if number is signal.SIGHUP else make.send_signal(number)
            make.wait(STOP_S)
        finally:
            make.kill()
    try:
        wait_until(lambda: not running(started), f"{target} ended", max(0, STOP_S - (time.monotonic() - begun)))
    finally:
        # Where the test fails, what was left is not left to the machine.
        for pid in running(started):
            os.kill(pid, signal.SIGTERM)
    assert not list(tmp_path.glob("ezai-lanes-*"))
