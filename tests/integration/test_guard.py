import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kit.processes import running
from kit.waiting import wait_until

from demo.errors import ChildEnded
from demo.processes import SIGNALS, ProcessGroup, interruptible, stop

#: The guard's patience with stubborn children, and a slow machine.
DEADLINE_S = 15.0

OBEDIENT = [sys.executable, "-c", "import time; time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)",
]

#: A command with an obedient child and one that does not hear SIGTERM.
COMMAND = f"""
import json, os, time
from demo.processes import ProcessGroup
group = ProcessGroup()
obedient = group.start("obedient", "obedient", {OBEDIENT!r}, os.environ)
stubborn = group.start("stubborn", "stubborn", {STUBBORN!r}, os.environ)
while not stubborn.log.stat().st_size:
    time.sleep(0.01)
pids = [child.process.pid for child in (group.guard, obedient, stubborn)]
print(json.dumps({{"pids": pids, "directory": str(group.directory)}}), flush=True)
time.sleep(600)
"""

#: A command that starts one child after the other.
BUSY_COMMAND = f"""
import json, os
from demo.processes import ProcessGroup
group = ProcessGroup()
print(json.dumps({{"group": group.guard.process.pid, "directory": str(group.directory)}}), flush=True)
while True:
    group.start("child", "child", {OBEDIENT!r}, os.environ)
"""


@contextmanager
def started(script: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """Run a script, and give its process and what it says first."""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as command:
        assert command.stdout is not None
        try:
            yield command, json.loads(command.stdout.readline())
        finally:
            command.kill()


@pytest.fixture
def group():
    """A group of this process."""
    group = ProcessGroup()
    yield group
    group.close()


def group_exists(group: int) -> bool:
    """Whether any process is in a group."""
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def test_a_killed_command_leaves_nothing_behind():
    """SIGKILL the command: its children, deaf ones too, the guard and the directory are gone within seconds."""
    with started(COMMAND) as (command, told):
        assert running(told["pids"]) == set(told["pids"])
        command.kill()
        wait_until(lambda: not running(told["pids"]), "all processes are gone", DEADLINE_S)
        wait_until(lambda: not Path(told["directory"]).exists(), "the directory is gone", DEADLINE_S)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_guard_outlives_signals_meant_for_the_command(number, group):
    """A signal that a person or a closing terminal sends to the guard does not end it."""
    child = group.start("child", "child", OBEDIENT, os.environ)
    os.kill(group.guard.process.pid, number)
    # What it does next is to read its pipe to the end, and to end the group.
    pipe, group.guard.process.stdin = group.guard.process.stdin, None
    assert pipe is not None
    pipe.close()
    child.process.wait(DEADLINE_S)
    wait_until(lambda: not group.directory.exists(), "the directory is gone", DEADLINE_S)


@pytest.mark.parametrize("seed", range(4))
def test_a_child_that_is_just_being_started_is_ended_too(seed):
    """Wherever between fork and exec of a child the command is killed, no process of its group stays."""
    with started(BUSY_COMMAND) as (command, told):
        time.sleep(random.Random(seed).uniform(0, 0.2))
        command.kill()
        command.wait(DEADLINE_S)
        wait_until(lambda: not group_exists(told["group"]), "the group is empty", DEADLINE_S)
        wait_until(lambda: not Path(told["directory"]).exists(), "the directory is gone", DEADLINE_S)


def test_close_ends_what_was_forgotten(group):
    """A child that nobody stopped ends with the group, and so does the directory."""
    child = group.start("child", "child", OBEDIENT, os.environ)
    group.close()
    child.process.wait(DEADLINE_S)
    assert not group.directory.exists()


def test_a_killed_guard_is_noticed(group):
    """The command learns that its guard is gone, and can still stop its children and remove the directory."""
    child = group.start("child", "child", OBEDIENT, os.environ)
    os.kill(group.guard.process.pid, signal.SIGKILL)
    wait_until(lambda: not group.guard.running, "the guard's end is noticed", DEADLINE_S)
    with pytest.raises(ChildEnded, match="The guard"):
        group.guard.check()
    stop([child], DEADLINE_S, lambda: False)
    group.close()
    assert not running([child.process.pid])
    assert not group.directory.exists()


def test_no_child_starts_without_a_group(group):
    """Once the guard is gone a child is refused, instead of being started where nobody ends it."""
    os.kill(group.guard.process.pid, signal.SIGKILL)
    wait_until(lambda: not group.guard.running, "the guard is dead", DEADLINE_S)
    with pytest.raises(ChildEnded, match="The guard"):
        group.start("child", "child", OBEDIENT, os.environ)


def test_a_child_that_ends_is_told_with_its_last_words(group):
    """The error about a dead child has its name, its status and the end of its log."""
    child = group.start("The child", "child", [sys.executable, "-c", "print('my last words'); exit(3)"], os.environ)
    wait_until(lambda: not child.running, "the child has ended", DEADLINE_S)
    with pytest.raises(ChildEnded, match=r"The child ended unexpectedly with status 3; .*\n  my last words"):
        child.check()


def test_a_deaf_child_is_killed_after_the_grace_and_at_once_in_a_hurry(group):
    """`stop` waits no longer than it is told, and not at all once somebody hurries it."""
    for grace, hurried, at_most in ((0.3, False, 10.0), (60.0, True, 10.0)):
        child = group.start("deaf", "deaf", STUBBORN, os.environ)
        wait_until(lambda log=child.log: log.stat().st_size > 0, "the child is deaf", DEADLINE_S)
        begun = time.monotonic()
        stop([child], grace, lambda hurried=hurried: hurried)
        assert time.monotonic() - begun < at_most
        assert not child.running


def test_the_first_interrupt_raises_and_the_next_hurries():
    """Ctrl-C, SIGTERM and SIGHUP raise KeyboardInterrupt once, whatever comes later hurries; the status is 130."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        with interruptible() as interrupts:
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
            assert not interrupts.hurried
            with pytest.raises(KeyboardInterrupt):
                interrupts.check()
            signal.raise_signal(signal.SIGHUP)
            assert interrupts.hurried
        with pytest.raises(SystemExit, match="130"), interruptible():
            signal.raise_signal(signal.SIGINT)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
