"""dramatiq with its Redis broker and its rate limiter.

Priorities for actors, 0 the most urgent (https://dramatiq.io/guide.html#prioritizing-messages), which count within a
process, so each has a queue as well, and the urgent one a process of its own (`dramatiq --queues`); a
`WindowRateLimiter` around the call, whose refusal retries the message with backoff
(https://dramatiq.io/cookbook.html#rate-limiting-work, https://dramatiq.io/reference.html#rate-limiters); on 429
`Retry` with the delay that the API asks for (https://dramatiq.io/guide.html#message-retries). An idle worker looks for
messages every 20 ms, not every second (https://dramatiq.io/advanced.html#environment-variables:
dramatiq_worker_timeout). Its `ConcurrentRateLimiter` limits calls at the same time, which is not what this API limits.
"""

from __future__ import annotations

import os
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.rate_limits import WindowRateLimiter
from dramatiq.rate_limits.backends import RedisBackend

from contenders.contender import RATE, TRANSIENT, Contender, client, retry_after

URL = os.environ["CELERY_BROKER_URL"]
#: Milliseconds: of backoff twice the least that its guide allows, and a second, in which the window moves on; then
#: those after which an idle worker looks again.
RETRIES: dict[str, Any] = {"max_retries": None, "min_backoff": 200, "max_backoff": 1_000}
IDLE_MS = "20"
PRIORITY = {"critical": 0, "normal": 50, "batch": 100}

dramatiq.set_broker(RedisBroker(url=URL))
window = WindowRateLimiter(RedisBackend(url=URL), "api", limit=RATE, window=1)


def answer(params: dict[str, Any]) -> None:
    """Call within the limit."""
    if os.environ.get("LIMITED"):
        with window.acquire():
            pass  # it limits how many begin in a second
    try:
        client().messages.create(**params)
    except TRANSIENT as error:
        raise dramatiq.errors.Retry(delay=round(retry_after(error) * 1_000)) from error


actors = {
    lane: dramatiq.actor(answer, actor_name=f"answer_{lane}", queue_name=lane, priority=priority, **RETRIES)
    for lane, priority in PRIORITY.items()
}


@dramatiq.actor(queue_name="batch", priority=PRIORITY["batch"])
def nothing() -> None:
    """Do nothing."""


class Dramatiq(Contender):
    """A process for critical, and one for all queues."""

    failure = "Retries exceeded"

    def start(self, reserved: int, shared: int, *, limited: bool) -> None:
        """Start the processes."""
        env = {"dramatiq_worker_timeout": IDLE_MS, "LIMITED": "1" if limited else ""}
        for name, slots, queues in (("critical", reserved, ["critical"]), ("shared", shared, list(PRIORITY))):
            options = ["-p", "1", "-t", str(slots), "-Q", *queues]
            if slots:
                module = ["dramatiq", "contenders.dramatiq_window"]
                self.rig.process(name, "Worker process is ready for action", *module, *options, **env)

    def submit(self, lane: str, params: dict[str, Any], tenant: str = "") -> None:
        """Submit."""
        actors[lane].send(params)

    def submit_nothing(self, jobs: int) -> None:
        """Queue jobs."""
        for _ in range(jobs):
            nothing.send()

    def left(self) -> int:
        """Count the messages of all queues and of their delayed twins; it forgets one when it is acknowledged."""
        return sum(int(self.rig.redis.hlen(f"dramatiq:{lane}{of}.msgs")) for lane in PRIORITY for of in ("", ".DQ"))
