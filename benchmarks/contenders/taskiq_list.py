"""taskiq with its Redis list broker.

It has no priorities, so each lane has a broker with a list of its own and its own worker
(https://taskiq-python.github.io/available-components/brokers.html, https://pypi.org/project/taskiq-redis), and no rate
limiter, so 429s come back by `SmartRetryMiddleware` with jitter, backoff and a schedule source, without which a list
broker does not wait at all
(https://taskiq-python.github.io/available-components/middlewares.html#smart-retry-middleware). The scheduler that a
source needs is a process of its own (https://taskiq-python.github.io/guide/scheduling-tasks.html).
"""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING, Any

from taskiq import SmartRetryMiddleware, TaskiqScheduler
from taskiq_redis import ListQueueBroker, ListRedisScheduleSource

from contenders.contender import TRANSIENT, Contender, async_client

if TYPE_CHECKING:
    from rig import Rig

URL = os.environ["CELERY_BROKER_URL"]
#: Retries until a job is given up: of a batch that takes minutes, all have to be answered.
RETRIES = 1_000
source = ListRedisScheduleSource(URL, prefix="later")


def _broker(lane: str) -> ListQueueBroker:
    retry = SmartRetryMiddleware(
        default_retry_count=RETRIES,
        default_delay=1,
        use_jitter=True,
        use_delay_exponent=True,
        max_delay_exponent=4,
        schedule_source=source,
        types_of_exceptions=list(TRANSIENT),
    )
    return ListQueueBroker(URL, queue_name=lane).with_middlewares(retry)


async def answer(params: dict[str, Any]) -> None:
    """Call."""
    await async_client().messages.create(**params)


async def nothing() -> None:
    """Do nothing."""


critical, normal, batch = brokers = tuple(_broker(lane) for lane in ("critical", "normal", "batch"))
answers = {
    each.queue_name: each.register_task(answer, f"answer_{each.queue_name}", retry_on_error=True) for each in brokers
}
nothings = batch.register_task(nothing, "nothing")
#: A schedule that is due names a task alone; the list that it goes to is in its labels.
scheduler = TaskiqScheduler(batch, [source])


class Taskiq(Contender):
    """A worker for critical, one for batch, and the scheduler."""

    failure = "Maximum retries count is reached"

    def __init__(self, rig: Rig) -> None:
        """Run a loop, as a web app on asyncio has one."""
        super().__init__(rig)
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        for broker in brokers:
            self._run(broker.startup())

    def start(self, reserved: int, shared: int, *, limited: bool) -> None:
        """Start the workers."""
        for name, slots, lane in (("critical", reserved, "critical"), ("shared", shared, "batch"), ("n", 0, "normal")):
            options = ["-w", "1", "--max-async-tasks", str(slots)]
            if slots:
                module = ["taskiq", "worker", f"contenders.taskiq_list:{lane}"]
                self.rig.process(name, "Listening started", *module, *options)
        if limited:
            module = ["taskiq", "scheduler", "contenders.taskiq_list:scheduler"]
            self.rig.process("scheduler", "Startup completed", *module, "--update-interval", "1")

    def submit(self, lane: str, params: dict[str, Any], tenant: str = "") -> None:
        """Submit."""
        self._run(answers[lane].kicker().with_labels(queue_name=lane).kiq(params))

    def submit_nothing(self, jobs: int) -> None:
        """Queue jobs, in its own loop."""

        async def all_of_them() -> None:
            for _ in range(jobs):
                await nothings.kiq()

        self._run(all_of_them())

    def left(self) -> int:
        """Count what waits; what a worker has taken is nowhere but in the worker."""
        redis = self.rig.redis
        later = sum(int(redis.llen(key)) for key in redis.scan_iter("later:*") if redis.type(key) == b"list")
        return later + sum(int(redis.llen(broker.queue_name)) for broker in brokers)

    def _run(self, what: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result()
