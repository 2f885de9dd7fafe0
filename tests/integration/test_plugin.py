"""What an environment's ``celery`` commands do because this package is installed: nothing."""

import difflib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

#: Seconds for one command, on a loaded CI machine.
IN_TIME_S = 60.0

#: `celery` as in an environment where this package is not installed, or is.
CELERY = """
import importlib.metadata as metadata, sys
found = metadata.entry_points
if sys.argv.pop(1) == "without":
    metadata.entry_points = lambda **which: [e for e in found(**which) if "lanes" not in e.value]
from celery.__main__ import main
try:
    sys.exit(main())
finally:
    with open("modules.txt", "w") as file:
        file.write("\\n".join(sys.modules))
"""

COMMANDS = [
    pytest.param(["-b", "amqp://guest@localhost:1//", "inspect", "ping"], marks=pytest.mark.slow),
    pytest.param(
        ["-b", "amqp://guest@localhost:1//", "-A", "otherproj", "inspect", "active_queues"], marks=pytest.mark.slow
    ),
    ["report"],
    ["--help"],
    ["--version"],
    ["worker", "--help"],
    ["-A", "otherproj", "worker", "--help"],
    ["-A", "otherproj", "report"],
    ["-A", "otherproj", "no-such-command"],
    ["-A", "no_such_project", "report"],
    ["-A", "broken", "report"],
    ["-A", "raising", "report"],
]


@pytest.fixture
def project(tmp_path):
    """A folder with a project that knows no lanes."""
    app = "app = Celery('{0}', broker='amqp://guest@localhost:1//', include={1})\n"
    (tmp_path / "otherproj.py").write_text(f"from celery import Celery\n{app.format('otherproj', [])}")
    # Celery imports what is included when a command wants the tasks, and lets errors through.
    (tmp_path / "raising.py").write_text(f"from celery import Celery\n{app.format('raising', ['broken'])}")
    (tmp_path / "broken.py").write_text("raise KeyError('at import')\n")
    return tmp_path


def run(project: Path, mode: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a `celery` command in a project, with or without this package's entry point."""
    ours = ("CELERY_", "EZAI_", "LANES_", "PYTHON")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return subprocess.run(
        [sys.executable, "-c", CELERY, mode, *arguments],
        env={**environ, "PYTHONHASHSEED": "0"},
        cwd=project,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=IN_TIME_S,
        check=False,
    )


def lines(result: subprocess.CompletedProcess[str]) -> Iterator[str]:
    """Yield what a command said and how it ended; addresses differ from run to run, and `lanes` is new in the help."""
    text = f"{result.stdout}\n-- stderr\n{result.stderr}\n-- status {result.returncode}"
    for line in re.sub(r"0x[0-9a-f]+", "0x…", text).splitlines():
        if not line.startswith("  lanes "):
            yield line


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_command_is_what_it_is_without_this_package(project, arguments):
    """Each command of another project says the same, byte for byte, and ends with the same status."""
    with_ours, without = (list(lines(run(project, mode, *arguments))) for mode in ("with", "without"))

    assert "\n".join(difflib.unified_diff(without, with_ours, "without", "with")) == ""


@pytest.mark.parametrize("arguments", [["--help"], ["report"], ["-A", "otherproj", "worker", "--help"]], ids=" ".join)
def test_a_command_imports_nothing_of_this_package(project, arguments):
    """One module is imported more than without this package, the one that offers its commands."""
    imported = []
    for mode in ("with", "without"):
        run(project, mode, *arguments)
        imported.append(set((project / "modules.txt").read_text().splitlines()))

    assert imported[0] - imported[1] == {"celery_lanes_plugin"}


def test_help_lists_lanes(project):
    """Whoever asks `celery --help` sees that there is a group `lanes`, and `celery lanes --help` what is in it."""
    assert "\n  lanes " in run(project, "with", "--help").stdout
    assert {"demo", "status", "up"} <= {*run(project, "with", "lanes", "--help").stdout.split()}


def test_without_an_application_lanes_means_the_lanes_own(project):
    """`celery lanes status` asks the lanes at the broker that `-b` names, and says in one line that nobody is there."""
    result = run(project, "with", "-b", "redis://127.0.0.1:1/0", "lanes", "status")

    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: No broker answers at redis://127.0.0.1:1/0")
    assert result.stderr.count("\n") == 1


def test_an_error_of_the_lanes_is_one_line_in_any_command(project):
    """A foreseen error that a command of Celery's own meets is told without a traceback."""
    (project / "broken.py").write_text(
        "from celery_app.errors import UnknownBatch\nraise UnknownBatch(batch_id='b-1', kept_days=7)\n"
    )
    result = run(project, "with", "-A", "raising", "report")

    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: There is no batch 'b-1'")
    assert result.stderr.count("\n") == 1


def test_a_module_that_hides_a_package_of_ours_is_named(project):
    """Many projects have a `celery_app.py`: Python's own words do not say what to do."""
    (project / "celery_app.py").write_text("from celery import Celery\napp = Celery('project')\n")
    result = run(project, "with", "-A", "celery_app", "lanes", "status")

    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert f"{project / 'celery_app.py'} hides the package 'celery_app'" in result.stderr
    assert "rename" in result.stderr


def test_a_tasks_module_that_hides_ours_is_named(project):
    """A worker meets it first."""
    (project / "tasks.py").write_text("")
    (project / "broken.py").write_text("import tasks.warmup\n")
    result = run(project, "with", "-A", "raising", "report")
    assert f"{project / 'tasks.py'} hides the package 'tasks'" in result.stderr

    (project / "broken.py").write_text("import tasks.of_their_own\n")
    assert (
        "ModuleNotFoundError: No module named 'tasks.of_their_own'"
        in run(project, "with", "-A", "raising", "report").stderr
    )


def test_a_hook_of_somebody_else_is_asked_for_all_other_errors(tmp_path):
    """An error reporter that was there first gets what is not ours, KeyboardInterrupt included."""
    script = (
        "import sys\n"
        "sys.excepthook = lambda kind, error, trace: print('theirs:', kind.__name__)\n"
        "import celery.bin.celery\n"
        "for kind in (ValueError, KeyboardInterrupt):\n    sys.excepthook(kind, kind(), None)\n"
        "assert 'celery_app' not in sys.modules\n"
        "from celery_app.errors import StreamExpired\n"
        "sys.excepthook(StreamExpired, StreamExpired(task_id='t', kept=1), None)\n"
        "sys.excepthook(ValueError, ValueError(), None)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=IN_TIME_S, check=False
    )

    assert result.stdout.splitlines() == ["theirs: ValueError", "theirs: KeyboardInterrupt", "theirs: ValueError"]
    assert result.stderr.startswith("Error: The stream of job t")
