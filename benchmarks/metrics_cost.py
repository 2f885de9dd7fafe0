"""What the metrics cost: a worker's throughput while it counts and while it does not, and a look at all lanes.

One worker is told to count and not to count by turns, and works off a batch each time: so whatever else the machine
does is shared fairly. Its throughput is bound by its processor, so what a job takes of that, and of the broker's, is
the figure; seconds are told, too, but on a busy machine say nothing of 2 %. Needs the extra `embedded`.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from kit.bench import main
from pydantic import SecretStr
from rig import Rig

from celery_app import LANES, create_app
from celery_app.client import Client
from celery_app.connections.redis_client import redis_client
from celery_app.metrics.stats import get_queue_stats
from celery_app.metrics.store import WAITS_SLOT
from celery_app.settings import Settings

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

REQUEST: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}

#: Seconds after which a worker has written what it counted; it does once a second.
FLUSHED_S = 2.0

#: Looks that a median is taken of.
LOOKS = 100


class Worker:
    """A worker with its broker, and what was measured of it while it counted (True) and while it did not."""

    def __init__(self, rig: Rig, slots: int) -> None:
        """Start it."""
        keys = {lane.name: SecretStr("k") for lane in LANES}
        self.app = create_app(Settings(broker_url=rig.broker_url, result_backend=rig.broker_url, api_keys=keys))
        self._client, self._redis = Client(self.app), redis_client(self.app)
        self._process = rig.worker("w", "-Q", "critical,normal,batch", "-c", str(slots), app="switched_metrics")
        self.cpu_ms: dict[bool, list[float]] = {True: [], False: []}
        self.jobs_per_s: dict[bool, list[float]] = {True: [], False: []}

    def round(self, jobs: int, *, on: bool) -> None:
        """Work off a batch."""
        (said,) = self.app.control.broadcast("count", arguments={"on": on}, reply=True, timeout=10, limit=1)
        assert list(said.values()) == [{"ok": on}]
        before = self._counted()
        cpu, begun = self._cpu(), time.perf_counter()
        list(self._client.submit_many([REQUEST] * jobs).results())
        time.sleep(FLUSHED_S)
        self.jobs_per_s[on].append(jobs / (time.perf_counter() - begun - FLUSHED_S))
        self.cpu_ms[on].append((self._cpu() - cpu) / jobs * 1e3)
        assert self._counted() - before == jobs * on

    def _counted(self) -> int:
        return sum(lane["processed"] for lane in get_queue_stats(self.app)["lanes"].values())

    def _cpu(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        broker = self._redis.info("cpu")
        own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return own + float(broker["used_cpu_user"]) + float(broker["used_cpu_sys"])


def look_ms(app: Any, action: Callable[[], object]) -> dict[str, float]:
    """Return the median milliseconds of a look, and of that what Redis is busy with it."""
    client, times = redis_client(app), []
    client.config_resetstat()
    for _ in range(LOOKS):
        begun = time.perf_counter()
        action()
        times.append((time.perf_counter() - begun) * 1e3)
    scripts = client.info("commandstats")["cmdstat_evalsha"]["usec"] / LOOKS / 1e3
    return {"ms": round(statistics.median(times), 2), "redis_ms": round(scripts, 2)}


def fill_slots(app: Any) -> None:
    """Make the worst case: every lane had that many different waits and calls in every slot of the window."""
    client = redis_client(app)
    for kind in ("waits", "calls"):
        slot = max(client.keys(f"lanes:metrics:batch:{kind}:*"))
        number = int(slot.rpartition(b":")[2])
        buckets = {str(bucket): 9 for bucket in range(436)} | client.hgetall(slot)
        for lane in LANES:
            for back in range(300 // WAITS_SLOT + 1):
                client.hset(f"lanes:metrics:{lane.name}:{kind}:{number - back}", mapping=buckets)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the figures."""
    with Rig() as rig:
        worker = Worker(rig, arguments.slots)
        for number in range(arguments.rounds + 1):
            for on in (True, False) if number % 2 else (False, True):
                worker.round(arguments.jobs, on=on)
        idle = look_ms(worker.app, lambda: get_queue_stats(worker.app))
        fill_slots(worker.app)
        full = look_ms(worker.app, lambda: get_queue_stats(worker.app))
    # The first round warms.
    on_ms, off_ms = (worker.cpu_ms[on][1:] for on in (True, False))
    on_speed, off_speed = (worker.jobs_per_s[on][1:] for on in (True, False))
    return {
        "cpu_ms_per_job": {"on": round(statistics.median(on_ms), 3), "off": round(statistics.median(off_ms), 3)},
        "throughput_on_by_off": {
            "by_cpu": round(statistics.median(off / on for on, off in zip(on_ms, off_ms, strict=True)), 4),
            "by_least_cpu": round(min(off_ms) / min(on_ms), 4),
            "by_clock": round(statistics.median(on / off for on, off in zip(on_speed, off_speed, strict=True)), 4),
        },
        "look": idle,
        "look_with_full_slots": full,
    }


def say(figures: dict[str, Any]) -> str:
    """Return the figures for people."""
    return "\n".join(
        f"{name:22}" + "".join(f" {field} {value}" for field, value in row.items()) for name, row in figures.items()
    )


if __name__ == "__main__":
    main(
        __doc__,
        measure,
        say,
        rounds=20,
        jobs=(400, "of a round"),
        slots=16,
    )
