"""Workers of an earlier commit and of today on one broker, as docs/operations.md has it: an upgrade, and back."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from kit.broker import Broker
from kit.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kit.worker import Worker

    from tests.conftest import Valkey

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]

#: What is in production while today's version is being deployed; the last release, once there is one.
BEFORE = "85bf067"

JOBS, IN_TIME_S = 300, 120.0

#: A producer of whatever version its PYTHONPATH has.
SEND = """
import sys
from kit.project import app
for n in range(int(sys.argv[2])):
    queue = ("batch", "normal", "critical")[n % 3]
    name = f"{sys.argv[1]}-{n}"
    task, rest = ("kit.retrying", [[0.2]]) if n % 10 == 0 else ("kit.job", [0.02])
    app.send_task(task, (name, *rest), queue=queue, task_id=name, ignore_result=True, countdown=0.5 * (n % 7 == 0))
"""


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The earlier version's tree."""
    folder = tmp_path_factory.mktemp("before") / "tree"
    git = shutil.which("git") or "git"
    made = subprocess.run(
        [git, "-C", str(ROOT), "worktree", "add", "--detach", str(folder), BEFORE],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"no history with {BEFORE}: {made.stderr.strip()}")
    yield folder
    subprocess.run([git, "-C", str(ROOT), "worktree", "remove", "--force", str(folder)], check=True)


@pytest.fixture
def broker(tmp_path: Path, valkey: Valkey) -> Iterator[Broker]:
    """An empty broker."""
    with Broker(tmp_path, valkey.url(12)) as broker:
        yield broker


def environment(tree: Path) -> dict[str, str]:
    """Return what has a process import one version, whatever is installed."""
    return {"PYTHONPATH": os.pathsep.join((str(tree), str(tree / "tests")))}


def started(broker: Broker, name: str, tree: Path) -> Worker:
    """Start a worker of a version."""
    return broker.starting(name, slots=4, env=environment(tree))


def send(broker: Broker, name: str, tree: Path, jobs: int = JOBS) -> list[str]:
    """Submit jobs by a version: some for later, some that return once."""
    env = {
        **os.environ,
        **environment(tree),
        "CELERY_BROKER_URL": broker.broker_url,
        "EZAI_API_KEY": "test-key",
        "KIT_EVENT_LOG_URL": broker.event_log_url,
    }
    subprocess.run([sys.executable, "-c", SEND, name, str(jobs)], env=env, cwd=tree, check=True, timeout=IN_TIME_S)
    return [f"{name}-{n}" for n in range(jobs)]


def done_by(broker: Broker, jobs: list[str]) -> set[str]:
    """Wait for jobs, and return the workers that have done them: each of them once, and none is dead."""
    broker.event_log.wait_for("end", jobs, IN_TIME_S)
    ends = [event for event in broker.event_log.read("end") if event.job in set(jobs)]
    assert len(ends) == len(jobs)
    assert broker.client.zcard("lanes:dead") == 0
    return {event.worker for event in ends}


def test_the_earlier_version_is_what_runs(before: Path) -> None:
    """The tests below are about two versions."""
    line = "import celery_app; print(celery_app.__file__)"
    env = {**os.environ, **environment(before)}
    shown = subprocess.run(
        [sys.executable, "-c", line], env=env, cwd=before, capture_output=True, text=True, check=True
    )
    assert shown.stdout.startswith(str(before))


def test_both_work_side_by_side(broker: Broker, before: Path) -> None:
    """Jobs of both clients are done once each by whichever worker is free, and by either alone: upgrade, and back."""
    old, new = started(broker, "old", before), started(broker, "new", ROOT)
    old.wait_until_ready(), new.wait_until_ready()
    jobs = [*send(broker, "first", before), *send(broker, "second", ROOT)]
    assert done_by(broker, jobs) == {old.name, new.name}
    left = send(broker, "upgraded", before, 60)
    assert old.stop() == 0
    assert new.name in done_by(broker, left)
    started(broker, "again", before).wait_until_ready()
    left = send(broker, "back", ROOT, 60)
    assert new.stop() == 0
    done_by(broker, left)
    assert broker.in_flight() == 0


def test_each_takes_over_from_a_dead_one_of_the_other(broker: Broker, before: Path) -> None:
    """What a killed worker of one version held is done by the other's."""
    versions: list[tuple[str, Path, Path]] = [("old", before, ROOT), ("new", ROOT, before)]
    for name, dying, other in versions:
        worker = started(broker, f"dying-{name}", dying).wait_until_ready()
        held = f"held-by-{name}"
        broker.send("kit.gated", held, held, task_id=held, ignore_result=True)
        broker.event_log.wait_for("start", [held], IN_TIME_S)
        worker.kill()
        broker.event_log.open_gate(held)
        heir: Any = started(broker, f"heir-of-{name}", other).wait_until_ready()
        assert done_by(broker, [held]) == {heir.name}
        heir.stop()
    wait_until(lambda: broker.in_flight() == 0, "nothing is held", IN_TIME_S)
