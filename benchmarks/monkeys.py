"""Whoever kills workers in `battle.py`: four kinds of kills, those of celery-redis-plus's public profile."""

from __future__ import annotations

import random
import signal
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nursery import Forked

#: How often each kind is: SIGKILL; SIGQUIT, with a soft shutdown; SIGTERM, with time enough; SIGTERM, then SIGKILL.
KINDS = {"hard": 0.4, "cold": 0.2, "warm": 0.2, "grace": 0.2}

#: Seconds of the soft shutdown, and from SIGTERM to SIGKILL in a deployment that gives too little: less than the
#: longest call takes. There it is 8 and 10 s, with calls of at most 5 s, so that both wait for all.
SOFT, GRACE = 2.0, 3.0

#: Seconds that a worker may take to finish what it does.
PATIENCE = 120.0


@dataclass(frozen=True, slots=True)
class Kill:
    """One; times are seconds since the epoch.

    Attributes:
        kind: one of `KINDS`.
        worker: its name.
        told: when it got its first signal.
        killed: when SIGKILL was sent; None if it ended by itself.
    """

    kind: str
    worker: str
    told: float
    killed: float | None


class Monkeys:
    """So many of them, each killing one worker after another, until told to stop; and the fleet that they kill."""

    def __init__(
        self, fleet: int, start: Callable[[], Forked], kills: int, pause: float, kinds: Sequence[str] = tuple(KINDS)
    ) -> None:
        """Start the fleet.

        Args:
            fleet: workers at a time.
            start: starts one.
            kills: after which they stop.
            pause: seconds that a monkey waits between two kills, and that a worker is away, mean.
            kinds: of the kills, as often as `KINDS` says.
        """
        self._start, self._left, self._pause, self._kinds = start, kills, pause, list(kinds)
        self._lock = threading.Lock()
        self.stopping = threading.Event()
        self.kills: list[Kill] = []
        self.errors: list[str] = []
        self.fleet = [start() for _ in range(fleet)]
        self._threads: list[threading.Thread] = []

    def let_loose(self, monkeys: int) -> None:
        """Let so many of them kill."""
        for worker in self.fleet:
            worker.wait_until_ready()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(monkeys)]
        for thread in self._threads:
            thread.start()

    @property
    def at_work(self) -> bool:
        """Whether one of them still kills, or waits for a successor."""
        return any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        try:
            while not self.stopping.wait(random.uniform(0.5, 1.5) * self._pause) and (victim := self._choose()):
                (kind,) = random.choices(self._kinds, [KINDS[each] for each in self._kinds])
                self.kills.append(_kill(victim, kind))
                time.sleep(self._pause)
                self._replace(victim)
        except (OSError, RuntimeError) as error:
            self.errors.append(str(error))

    def _choose(self) -> Forked | None:
        with self._lock:
            if self._left <= 0:
                return None
            self._left -= 1
            victim = random.choice(self.fleet)
            self.fleet.remove(victim)
            return victim

    def _replace(self, victim: Forked) -> None:
        successor = self._start()
        try:
            successor.wait_until_ready()
        finally:
            with self._lock:
                self.fleet.append(successor)

    def end(self) -> None:
        """Leave no worker running."""
        self.stopping.set()
        for thread in self._threads:
            thread.join(PATIENCE)
        for worker in self.fleet:
            worker.kill()


def _kill(worker: Forked, kind: str) -> Kill:
    """End a worker, and say how it went; raise RuntimeError if it had died before."""
    if not worker.is_up():
        raise RuntimeError(f"{worker.name} died unasked; its log ends:\n{worker.log.read_text()[-2000:]}")
    told = time.time()
    first, grace = {
        "hard": (signal.SIGKILL, 0.0),
        "cold": (signal.SIGQUIT, PATIENCE),
        "warm": (signal.SIGTERM, PATIENCE),
        "grace": (signal.SIGTERM, GRACE),
    }[kind]
    worker.send(first)
    if worker.ended_within(grace):
        return Kill(kind, worker.name, told, told if worker.killed else None)
    killed = told if kind == "hard" else time.time()
    worker.kill()
    return Kill(kind, worker.name, told, killed if worker.killed else None)
