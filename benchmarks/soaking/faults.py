"""What is done to a running system: each for a while, and then all is well again before the function returns."""

from __future__ import annotations

import os
import random
import resource
import signal
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from kit.waiting import wait_until
from redis import RedisError
from soaking.ground import WELL, stop
from soaking.ledger import Fault
from soaking.servers import TO_RECOVER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from soaking.ground import Ground

#: Seconds that what lasts lasts; between two cuts of all connections; and between two deaths of workers.
LASTS, CUT_EVERY, KILL_EVERY = 8.0, 0.5, (8.0, 20.0)


def broker_stopped(ground: Ground) -> None:
    """The master is stopped, as for an upgrade, and started again."""
    master = ground.pair.master
    master.stop()
    master.start()


def broker_killed(ground: Ground) -> None:
    """The master is killed and started again; its journal has all that it said it had."""
    master = ground.pair.master
    master.kill()
    master.start()


def failover(ground: Ground) -> None:
    """An operator has the Sentinels make the replica the master, once it has all that the master has."""
    old = ground.pair.master
    with old.client() as client:
        client.client_pause(int(TO_RECOVER * 1000), all=False)
        try:
            ground.pair.wait_until_well(behind=0)
            ground.pair.ask_sentinel("FAILOVER")
            wait_until(lambda: ground.pair.master is not old, "the replica is the master", TO_RECOVER)
        finally:
            # Sentinel's own words wait, too. It has no replica any more, and takes no write (`LINES`).
            with suppress(RedisError):  # its servers may be gone already, at Ctrl-C
                client.client_unpause()


def master_lost(ground: Ground) -> None:
    """The master is killed, the Sentinels make the replica the master, and later the old one comes back."""
    old = ground.pair.master
    old.kill()
    try:
        wait_until(lambda: ground.pair.master is not old, "the replica is the master", TO_RECOVER)
    finally:
        old.start()


def connections_cut(ground: Ground) -> None:
    """All connections to the master are cut, again and again."""
    with ground.pair.client() as client:
        for _ in range(int(LASTS / CUT_EVERY)):
            for kind in ("normal", "pubsub"):
                client.client_kill_filter(_type=kind, skipme=True)
            time.sleep(CUT_EVERY)


def memory_full(ground: Ground) -> None:
    """The master has no memory for a write."""
    with ground.pair.client() as client:
        client.config_set("maxmemory", 1)
        try:
            time.sleep(LASTS)
        finally:
            client.config_set("maxmemory", 0)


def disk_full(ground: Ground) -> None:
    """The master's journal cannot grow: a limit on the size of files, as every file system has one in the end."""
    process = ground.pair.master.process
    assert process is not None
    _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1, hard))
    try:
        time.sleep(LASTS)
    finally:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (hard, hard))


def api_overloaded(ground: Ground) -> None:
    """The API answers every call with 529."""
    with behaving(ground, outage=True):
        time.sleep(LASTS)


def api_failing(ground: Ground) -> None:
    """The API fails half of all calls, and breaks off every other stream."""
    with behaving(ground, server_error_rate=0.5, drop_mid_stream_rate=0.4):
        time.sleep(LASTS)


def api_silent(ground: Ground) -> None:
    """The API takes calls, and neither answers nor hangs up."""
    ground.api.process.send_signal(signal.SIGSTOP)
    try:
        time.sleep(LASTS)
    finally:
        ground.api.process.send_signal(signal.SIGCONT)


@contextmanager
def behaving(ground: Ground, **changes: object) -> Iterator[None]:
    """Have the API behave otherwise for a while."""
    ground.control(**changes)
    try:
        yield
    finally:
        ground.control(**WELL)


ALL: tuple[Callable[[Ground], None], ...] = (
    broker_killed,
    api_overloaded,
    failover,
    disk_full,
    api_silent,
    master_lost,
    memory_full,
    api_failing,
    connections_cut,
    broker_stopped,
)


class Killer(threading.Thread):
    """Ends workers, two of three by SIGKILL and the third as a deployment does, whatever else goes on."""

    def __init__(self, ground: Ground, tell: Callable[[Fault], None]) -> None:
        super().__init__(name="killer", daemon=True)
        self._ground, self._tell, self._over = ground, tell, threading.Event()
        self.failed: Exception | None = None

    def run(self) -> None:
        """Kill the oldest victim and start its successor, until it is told to end."""
        done = 0
        try:
            while not self._over.wait(random.uniform(*KILL_EVERY)):
                done += 1
                self._end_one("worker stopped" if done % 3 == 0 else "worker killed")
        except Exception as exc:  # noqa: BLE001 - told by the main thread
            self.failed = exc

    def _end_one(self, how: str) -> None:
        name = self._ground.victims()[0]
        child, began = self._ground.workers[name], time.time()
        if how == "worker stopped":
            stop(child)
        else:
            os.kill(child.process.pid, signal.SIGKILL)
            child.process.wait()
        self._tell(Fault(how, began, time.time()))
        successor = self._ground.start_worker()
        del self._ground.workers[name]
        self._ground.wait_until_ready(successor)

    def end(self) -> None:
        """Kill no more, and leave all workers ready."""
        self._over.set()
        self.join()
