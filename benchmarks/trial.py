"""Trial: one measurement of one contender. It submits jobs and finds them again in the API's own log."""

from __future__ import annotations

import importlib
import os
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from contenders import CONTENDERS
from contenders.contender import parameters
from rig import Rig, quantiles

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Seconds between two looks whether all is done.
TICK = 0.1


class Trial:
    """A contender with its workers running."""

    def __init__(self, rig: Rig, name: str) -> None:
        """Take the rig; the contender's own modules connect to its broker, so they are imported once it is there."""
        self.rig = rig
        os.environ.update(rig.environment)
        module, kind = CONTENDERS[name]
        self.contender = getattr(importlib.import_module(f"contenders.{module}"), kind)(rig)
        self.submitted: dict[str, float] = {}
        self._numbers: Counter[str] = Counter()

    def start(self, reserved: int, shared: int, *, limited: bool, **env: str) -> None:
        """Start the workers, and have each make the first call, which finds code and connections cold."""
        self.contender.start(reserved, shared, limited=limited, **env)
        self.rig.wait_until_ready()
        for _ in range(2):
            for lane in ("critical", "batch"):
                self.submit("warm-up", lane)
        self.until_answered("warm-up", 15)
        time.sleep(1.1)  # the API's bucket is full again
        self.cpu = self.rig.cpu_seconds()

    def submit(self, kind: str, lane: str, **call: Any) -> None:
        """Submit one job of a kind, with `tokens` or a `model`; of a `tenant` where the contender knows tenants."""
        tenant = call.pop("tenant", "")
        self.contender.submit(lane, self._call(kind, **call), tenant)

    def submit_many(self, kind: str, jobs: int, tenant: str) -> None:
        """Submit jobs of a tenant to batch, which only the lanes know."""
        self.contender.submit_many([self._call(kind) for _ in range(jobs)], tenant)

    def _call(self, kind: str, **call: Any) -> dict[str, Any]:
        name = f"{kind}-{self._numbers[kind]}"
        self._numbers[kind] += 1
        self.submitted[name] = time.time()
        return parameters(name, **call)

    def at_rate(self, kind: str, lane: str, rate: float, seconds: float) -> None:
        """Submit jobs at a steady rate."""
        start = time.time()
        for n in range(round(rate * seconds)):
            self.submit(kind, lane)
            time.sleep(max(0.0, start + (n + 1) / rate - time.time()))

    def answered(self, *kinds: str) -> dict[str, list[float]]:
        """Return when the answered calls of each job of some kinds arrived, seconds since the epoch."""
        found: dict[str, list[float]] = {}
        for call in self.rig.calls():
            if call["status"] == 200 and call["user_id"].rpartition("-")[0] in kinds:
                found.setdefault(call["user_id"], []).append(call["arrived"])
        return found

    def until_answered(self, kind: str, seconds: float) -> None:
        """Wait until all jobs of a kind are answered, or for so long."""
        end = time.monotonic() + seconds
        while len(self.answered(kind)) < self._numbers[kind] and time.monotonic() < end:
            time.sleep(TICK)

    def drain(self, seconds: float) -> None:
        """Wait until every job is answered or given up, or for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            done = self.rig.summary()["statuses"].get("200", 0)
            if done >= len(self.submitted) and not self.contender.left():
                return
            if done + self.contender.failed() >= len(self.submitted) and not self.contender.left():
                time.sleep(1)  # what is in no list may be in a worker's hands
                return
            time.sleep(TICK * 2)

    def waits(self, kind: str) -> dict[str, float]:
        """Return the waits of all jobs of a kind in ms, from submission to the arrival of the call that was answered.

        A job that has none has waited until now; `unanswered` says how many those are.
        """
        found, now = self.answered(kind), time.time()
        waits = [
            min(found.get(name, [now])) - at for name, at in self.submitted.items() if name.rpartition("-")[0] == kind
        ]
        return {"jobs": len(waits), "unanswered": len(waits) - len(found), **quantiles(waits)}

    def accounts(self) -> dict[str, Any]:
        """Return what became of all jobs, what the API refused, and what a job cost in CPU."""
        kinds = {name.rpartition("-")[0] for name in self.submitted}
        found, failed = self.answered(*kinds), self.contender.failed()
        return {
            "limited": self.rig.summary()["statuses"].get("429", 0),
            "failed": failed,
            "unanswered": len(self.submitted) - len(found) - min(failed, len(self.submitted) - len(found)),
            "done_twice": sum(len(times) > 1 for times in found.values()),
            "cpu_ms_per_job": round((self.rig.cpu_seconds() - self.cpu) * 1_000 / max(1, len(found)), 2),
        }

    def used(self, since: float, until: float) -> int:
        """Return how many calls the API's limit let in, in a time: also those that failed behind it."""
        return sum(call["status"] != 429 and since <= call["arrived"] < until for call in self.rig.calls())


@contextmanager
def trial(name: str, *api_options: str) -> Iterator[Trial]:
    """Run a block with a contender, not yet started; nothing of it is left afterwards."""
    with Rig(*api_options) as rig:
        yield Trial(rig, name)
