"""How soon what an operator changes holds for all workers: limits and a pause, by what the simulated API has noted.

Four workers work off a backlog of `batch`. Its limit is lowered and raised, then the lane is paused and resumed. What
is counted came half a second after the change, or later. Needs the extra `embedded`.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from kit.bench import main
from pydantic import SecretStr
from rig import Rig

from celery_app import LANES, controls, create_app
from celery_app.client import Client
from celery_app.settings import Settings

if TYPE_CHECKING:
    import argparse

MODEL = "m"

#: Requests a minute: at first, then lowered, then raised.
LIMITS = (2_400, 600, 3_000)

#: Seconds that each lasts; a limit's bucket holds a second of it, and `HEADROOM` of it is used.
HOLD_S, BURST_S, HEADROOM = 6.0, 1.0, 0.98

#: Seconds within which a change has to hold.
IN_TIME_S = 0.5


class Load:
    """A backlog that four workers work off."""

    def __init__(self, rig: Rig, slots: int, jobs: int) -> None:
        """Start the workers, and queue the jobs."""
        self._rig = rig
        limits = json.dumps({MODEL: {"rpm": LIMITS[0]}})
        for number in range(4):
            rig.worker(f"w{number}", "-Q", "critical,normal,batch", "-c", str(slots), EZAI_LIMITS=limits)
        keys = {lane.name: SecretStr("k") for lane in LANES}
        self.app = create_app(Settings(broker_url=rig.broker_url, result_backend=rig.broker_url, api_keys=keys))
        request = {"model": MODEL, "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}
        Client(self.app).submit_many([request] * jobs)

    def arrivals(self, since: float) -> list[float]:
        """Return when calls came, in seconds from a time on."""
        return [call["arrived"] - since for call in self._rig.calls() if call["arrived"] >= since]


def limited(load: Load, rpm: int) -> dict[str, Any]:
    """Change the limit, and return how it was kept from `IN_TIME_S` on."""
    controls.set_limits(load.app, {"rpm": rpm}, model=MODEL)
    since = time.time()
    time.sleep(HOLD_S)
    arrived = [at for at in load.arrivals(since) if IN_TIME_S <= at < HOLD_S]
    rate, seconds = rpm / 60, HOLD_S - IN_TIME_S
    return {
        "calls": len(arrived),
        "allowed": round(rate * HEADROOM * seconds + rate * BURST_S),
        "of_the_limit": round(len(arrived) / (rate * seconds), 3),
        "of_the_limit_at_once": round(sum(at < 2 * IN_TIME_S for at in arrived) / (rate * IN_TIME_S), 3),
    }


def paused(load: Load) -> dict[str, Any]:
    """Pause the lane and resume it; return when the last call came, and when the next one did."""
    controls.pause(load.app, "batch")
    since = time.time()
    time.sleep(HOLD_S)
    last = max(load.arrivals(since), default=0.0)
    later = sum(at > IN_TIME_S for at in load.arrivals(since))
    controls.resume(load.app, "batch")
    since = time.time()
    time.sleep(HOLD_S / 2)
    return {
        "last_call_after_s": round(last, 3),
        "calls_after_that": later,
        "resumed_after_s": round(min(load.arrivals(since), default=HOLD_S), 3),
    }


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return how everything held."""
    with Rig("--latency", "0.2") as rig:
        load = Load(rig, arguments.slots, arguments.jobs)
        time.sleep(HOLD_S)
        found: dict[str, Any] = {f"limit {rpm}": limited(load, rpm) for rpm in LIMITS[1:]}
        return {**found, "pause": paused(load)}


def say(figures: dict[str, Any]) -> str:
    """Return the figures for people."""
    return "\n".join(
        f"{name:12}" + "".join(f" {field} {value}" for field, value in row.items()) for name, row in figures.items()
    )


if __name__ == "__main__":
    main(
        __doc__,
        measure,
        say,
        jobs=1_500,
        slots=(6, "of each of the four workers"),
    )
