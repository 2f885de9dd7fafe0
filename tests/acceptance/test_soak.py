"""The soak, for a minute: every job is accounted for; and ended in the middle it leaves nothing behind."""

import json
import signal
import subprocess
import sys
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

import pytest
from kit.processes import running
from kit.waiting import wait_until

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, str(ROOT / "benchmarks" / "soak.py"), "--rate", "5", "--json"]

#: Seconds for a soak of a minute: its start, its end, and a busy machine.
DEADLINE_S = 900.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1_200),
    pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc, and limits another process' files"),
]


def test_a_minute_of_all_that_can_fail_leaves_every_job_accounted_for() -> None:
    """Each has ended once, or is explained; and no process has grown."""
    done = subprocess.run(
        [*COMMAND, "--minutes", "1"], capture_output=True, text=True, timeout=DEADLINE_S, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["findings"] == []
    assert found["jobs"] > 100
    assert len(found["faults"]) >= 4


def test_ctrl_c_leaves_nothing_running() -> None:
    """Neither workers nor servers nor Sentinels, and it says so in one line."""
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, text=True) as soak:
        try:
            assert soak.stderr
            assert "are up" in soak.stderr.readline()
            ours = descendants(soak.pid)
            assert len(ours) > 10
            soak.send_signal(signal.SIGINT)
            _, said = soak.communicate(timeout=DEADLINE_S)
        finally:
            soak.kill()
    assert (soak.returncode, said.splitlines()[-1]) == (130, "Stopped; nothing is left running.")
    wait_until(lambda: not running(ours), "all are gone")


def descendants(pid: int) -> set[int]:
    """Return all processes below one."""
    children = defaultdict(set)
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            children[int(status.read_text().rpartition(")")[2].split()[1])].add(int(status.parent.name))
    found, new = set(), {pid}
    while new := {child for parent in new for child in children[parent]} - found:
        found |= new
    return found
