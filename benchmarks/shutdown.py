"""What becomes of jobs when workers are told to stop: once, twice, and one after another in a deployment that kills."""

from __future__ import annotations

import random
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from kit.bench import main
from kit.broker import Broker
from kit.server import Server
from kit.waiting import wait_until
from redis import Redis
from rig import Rig

from celery_app import create_app
from celery_app.client import Client

if TYPE_CHECKING:
    import argparse
    import subprocess
    from collections.abc import Callable

RUNNING, QUEUED = 100, 500

#: A limit that bounds nothing here: one that is not known is found by trying, which takes a while.
KNOWN = {"EZAI_RPM": "1000000"}

#: Seconds after which a second SIGTERM is one.
ANOTHER = 1.5

#: The deployment is a tenth of a real one: killed after 3 s instead of 30, calls of up to 6 s instead of 60, leases of
#: 2 s instead of 15 (``kit.hasty``).
GRACE, SHORT, LONG, LONG_EVERY = 3.0, (0.05, 1.0), 6.0, 20
FLEET, SLOTS, ROUNDS, AT_ONCE = 4, 10, 3, 80

IN_TIME_S = 300.0


def measure(arguments: argparse.Namespace) -> Any:
    """Return the figures of all three."""
    return {"once": _told(arguments.seconds, twice=False), "twice": _told(arguments.seconds, twice=True), **_deploy()}


def say(figures: Any) -> str:
    """Return a line for each."""
    once, twice, roll = figures["once"], figures["twice"], figures["deployment"]
    return (
        f"{RUNNING} calls run, {QUEUED} queued. SIGTERM: {once['queued']} queued after {once['queued_s']:.2f} s; the "
        f"worker ends {once['exit_after_last_s']:.2f} s after its last call, {once['answered']} answered\n"
        f"a second SIGTERM: all {RUNNING} are back after {twice['back_s']:.2f} s, the worker ends after "
        f"{twice['exit_s']:.2f} s, another one has called all of them after {twice['taken_s']:.2f} s\n"
        f"{FLEET} workers replaced {ROUNDS} times under load, each killed after {GRACE:g} s: {roll['jobs']} jobs, lost "
        f"{roll['lost']}, dead {roll['dead']}, done twice {roll['twice']}, begun again {roll['again']}, "
        f"killed {roll['killed']} of {FLEET * ROUNDS}"
    )


def _told(seconds: float, *, twice: bool) -> dict[str, Any]:
    with Rig("--latency", str(seconds)) as rig, Redis.from_url(rig.broker_url) as redis:
        worker = rig.worker("first", "-Q", "batch", "-c", str(RUNNING), **KNOWN)
        client = Client(create_app_at(rig.broker_url))
        for n in range(RUNNING + QUEUED):
            client.submit("batch", model="m", max_tokens=64, messages=[{"role": "user", "content": str(n)}])
        wait_until(lambda: rig.summary()["in_flight"] == RUNNING, "all slots are busy", IN_TIME_S)
        signalled = time.monotonic()
        worker.send_signal(signal.SIGTERM)
        wait_until(lambda: redis.keys("lanes:leaving:*"), "it is told", IN_TIME_S)
        figures = {"queued": _queued(redis), "queued_s": time.monotonic() - signalled}
        if twice:
            return _twice(rig, worker)
        worker.wait(IN_TIME_S)
        ended = time.time()
        calls = rig.calls()
        last = max(call["arrived"] for call in calls) + seconds
        return {**figures, "exit_after_last_s": ended - last, "answered": len(calls)}


def _twice(rig: Rig, worker: subprocess.Popen[bytes]) -> dict[str, Any]:
    rig.worker("second", "-Q", "batch", "-c", str(RUNNING + QUEUED), **KNOWN)
    wait_until(lambda: rig.summary()["in_flight"] == RUNNING + QUEUED, "the other has what was queued", IN_TIME_S)
    before, signalled = len(rig.calls()), time.monotonic()
    worker.send_signal(signal.SIGTERM)
    return _seconds_until(
        signalled,
        back_s=lambda: (
            sum(1 for call in rig.calls() if call["closed_by_client"]) >= RUNNING
        ),  # its slot returns it then
        taken_s=lambda: len(rig.calls()) >= before + RUNNING,
        exit_s=lambda: worker.poll() is not None,
    )


def _seconds_until(begun: float, **conditions: Callable[[], object]) -> dict[str, Any]:
    found: dict[str, float] = {}

    def all_found() -> bool:
        for name, condition in conditions.items():
            if name not in found and condition():
                found[name] = time.monotonic() - begun
        return len(found) == len(conditions)

    wait_until(all_found, "all of it", IN_TIME_S)
    return found


def _queued(redis: Redis) -> int:
    return int(redis.hget("lanes:counts", "batch:queued") or 0)


def create_app_at(url: str) -> Any:
    """Return an application that can submit."""
    from celery_app.settings import Settings

    return create_app(Settings(broker_url=url, result_backend=url))


def _deploy() -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="shutdown-") as name:
        folder = Path(name)
        with (
            Server(folder / "broker", durable=False) as server,
            Server(folder / "log", durable=False) as notes,
            Broker(folder, server.url, notes.url) as broker,
        ):
            return {"deployment": _roll(broker)}


def _roll(broker: Broker) -> dict[str, Any]:
    fleet = broker.workers(*(f"w0-{n}" for n in range(FLEET)), slots=SLOTS, app="kit.hasty", queues="batch")
    load, killed = _Load(broker), 0
    for number in range(1, ROUNDS + 1):
        for n in range(FLEET):
            successor = broker.starting(f"w{number}-{n}", slots=SLOTS, app="kit.hasty", queues="batch")
            wait_until(lambda s=successor: load.keep_up() and s._is_ready(), "ready", IN_TIME_S)  # noqa: SLF001
            fleet[n].send(signal.SIGTERM)
            give_up_at = time.monotonic() + GRACE
            while fleet[n].process.poll() is None and time.monotonic() < give_up_at:
                load.keep_up()
                time.sleep(0.02)
            killed += fleet[n].process.poll() is None
            with suppress(ProcessLookupError):
                fleet[n].kill()
            fleet[n] = successor
    with suppress(AssertionError):
        wait_until(lambda: broker.event_log.done() >= load.sent, "all are done", IN_TIME_S)
    ends, starts = broker.event_log.counts("end"), broker.event_log.counts("start")
    return {
        "jobs": load.sent,
        "lost": load.sent - len(ends),
        "dead": int(broker.client.zcard("lanes:dead")),
        "twice": sum(1 for count in ends.values() if count > 1),
        "again": sum(1 for count in starts.values() if count > 1),
        "killed": killed,
    }


class _Load:
    """Keeps jobs queued; every twentieth takes longer than the grace."""

    def __init__(self, broker: Broker) -> None:
        self.sent, self._broker, self._random = 0, broker, random.Random(1)

    def keep_up(self) -> bool:
        """Send what is missing, and return True."""
        while self.sent < self._broker.event_log.done() + AT_ONCE:
            seconds = LONG if self.sent % LONG_EVERY == 0 else self._random.uniform(*SHORT)
            name = f"job-{self.sent}"
            self._broker.send("kit.job", name, seconds, task_id=name, ignore_result=True)
            self.sent += 1
        return True


if __name__ == "__main__":
    main(__doc__, measure, say, seconds=60.0)
