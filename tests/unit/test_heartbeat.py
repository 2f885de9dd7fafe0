"""The one background thread of a process."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from redis import RedisError

from celery_app import create_app
from celery_app.connections.redis_client import heartbeat_client
from celery_app.process.heartbeat import Entry, Heartbeat
from celery_app.settings import Settings

#: Seconds that only a hang takes.
IN_TIME_S = 30.0

OFTEN = 0.01


class Counted:
    """A function for an entry that counts its runs, and does something in each."""

    def __init__(self, do: Callable[[int], bool] = lambda _: True) -> None:
        """Do something: given the run's number, from 1, it returns whether there is more."""
        self.runs, self._do, self._ran = 0, do, threading.Condition()
        self.entry = Entry("count", OFTEN, self)

    def __call__(self) -> bool:
        """Run once."""
        with self._ran:
            self.runs += 1
            self._ran.notify_all()
        return self._do(self.runs)

    def wait_for(self, runs: int) -> None:
        """Wait until it has run so often."""
        with self._ran:
            assert self._ran.wait_for(lambda: self.runs >= runs, IN_TIME_S), f"{self.runs} runs of {runs}"


@pytest.fixture
def heartbeat():
    """One of the test's own."""
    heartbeat = Heartbeat()
    yield heartbeat
    heartbeat.stop()


def run(program: str) -> str:
    """Run a program in a process of its own; return what it has said."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=IN_TIME_S, check=True
    )
    return done.stdout.strip()


def test_an_entry_that_raises_stops_no_other(heartbeat, caplog):
    """It is tried again until it does well, and an outage of any length is one line."""

    def fail_at_first(run: int) -> bool:
        if run <= 3:
            raise AttributeError("'NoneType' object has no attribute 'readline'")
        return True

    failing, other = Counted(fail_at_first), Counted()
    heartbeat.wake(failing.entry)
    heartbeat.wake(other.entry)
    other.wait_for(20)
    failing.wait_for(5)

    said = "cannot count at the moment: 'NoneType' object has no attribute 'readline'"
    assert caplog.messages == [said]


def test_an_entry_whose_broker_is_mute_holds_up_the_others_for_a_moment(heartbeat):
    """For a reply's time: however long the project has its connections wait, the others run on after that."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"redis://127.0.0.1:{mute.getsockname()[1]}/0"
        app: Any = create_app(Settings(broker_url=url, result_backend=url))
        app.conf.broker_transport_options = {"socket_timeout": 100 * IN_TIME_S}
        raised: list[BaseException] = []

        def ask(_: int) -> bool:
            try:
                return bool(heartbeat_client(app).ping())
            except RedisError as exc:
                raised.append(exc)
                raise

        asking, other = Counted(ask), Counted()
        heartbeat.wake(other.entry)
        heartbeat.wake(asking.entry)
        asking.wait_for(2)
        ran_before = other.runs
        other.wait_for(ran_before + 2)
        assert raised
        heartbeat.end(asking.entry)
    heartbeat_client(app).close()


def test_an_entry_that_has_nothing_to_do_rests_until_it_is_woken(heartbeat):
    """It runs as often as it was woken, while another runs on and on."""
    resting, other = Counted(lambda _: False), Counted()
    heartbeat.wake(other.entry)
    for runs in (1, 2):
        heartbeat.wake(resting.entry)
        resting.wait_for(runs)
        other.wait_for(other.runs + 10)
        assert resting.runs == runs


def test_an_entry_that_is_woken_while_it_runs_runs_again(heartbeat):
    """It may have looked before there was anything to see."""

    def look(run: int) -> bool:
        if run == 1:
            heartbeat.wake(resting.entry)
        return False

    resting = Counted(look)
    heartbeat.wake(resting.entry)
    resting.wait_for(2)


def test_an_entry_that_is_ended_has_run_for_the_last_time(heartbeat):
    """Whoever ends it may take away what it uses; a run under way is waited for."""
    begun, over = threading.Event(), list[int]()

    def work(run: int) -> bool:
        begun.set()
        time.sleep(0.2)
        over.append(run)
        return True

    working, other = Counted(work), Counted()
    heartbeat.wake(working.entry)
    assert begun.wait(IN_TIME_S)
    heartbeat.end(working.entry)
    runs = working.runs
    assert len(over) == runs
    heartbeat.wake(other.entry)
    other.wait_for(10)
    assert working.runs == runs


def test_a_heartbeat_that_has_stopped_runs_nothing(heartbeat):
    """Its thread is gone, and nobody starts another."""
    before, counted = threading.active_count(), Counted()
    heartbeat.wake(counted.entry)
    counted.wait_for(2)
    assert threading.active_count() == before + 1
    heartbeat.stop()
    runs = counted.runs
    heartbeat.wake(counted.entry)
    assert threading.active_count() == before
    assert counted.runs == runs


FORKING = """
import os, sys, threading, time
from celery_app.process.heartbeat import HEARTBEAT, Entry

of_parent, of_child = [], threading.Event()
parents = Entry("count", 0.0001, lambda: of_parent.append(os.getpid()) or True)
own = Entry("count", 0.001, lambda: of_child.set() or True)
HEARTBEAT.wake(parents)
for _ in range(30):
    if os.fork() == 0:
        HEARTBEAT.wake(own)
        alive = of_child.wait(20)
        for _ in range(2):  # a second turn: whatever else is awake has had one
            of_child.clear()
            alive = alive and of_child.wait(20)
        os._exit(0 if alive and os.getpid() not in of_parent else 1)
codes = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(30)]
before = len(of_parent)
until = time.monotonic() + 20
while len(of_parent) == before and time.monotonic() < until:
    time.sleep(0.001)
print(sorted(set(codes)), len(of_parent) > before, threading.active_count())
"""


def test_a_fork_has_a_heartbeat_of_its_own():
    """Forked at any moment, it runs what it wakes itself and nothing of its parent's, whose thread goes on."""
    assert run(FORKING) == "[0] True 2"


HANGING = """
import threading
from celery_app.process.heartbeat import HEARTBEAT, Entry

begun = threading.Event()
HEARTBEAT.wake(Entry("hang", 0.0, lambda: begun.set() or threading.Event().wait()))
begun.wait()
"""


def test_a_process_ends_although_an_entry_hangs():
    """It is waited for, but not for ever."""
    assert run(HANGING) == ""
