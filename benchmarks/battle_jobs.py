"""The jobs of `battle.py`, sent at a steady rate in a mix like that of celery-redis-plus's profile."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from celery_app.client.sending import CREATE_TASK, lane_of, send
from celery_app.errors import MaybeQueued
from celery_app.keys import STREAM_TASK

if TYPE_CHECKING:
    from redis import Redis

#: How often each sort is: a short call; one that is to begin later; a stream of 1 to 5 s; a long prompt.
MIX = {"fast": 0.65, "delayed": 0.20, "slow": 0.10, "long": 0.05}

#: Of the simulated API: seconds of a call, tokens per second of a stream; of the mix: seconds that a stream takes and
#: that a job is put off; characters of a long prompt.
LATENCY, PACE, STREAMED, PUT_OFF, LONG = 0.05, 5, (1.0, 5.0), (5.0, 30.0), 100_000

#: How often each lane is.
LANES = {"critical": 0.2, "normal": 0.3, "batch": 0.5}

#: Jobs that are sent at once where the machine is too slow for the rate.
AT_ONCE = 20

#: Seconds between two looks at what has ended.
LOOK_EVERY = 1.0


class Jobs:
    """What was sent, and how each of it ended.

    Attributes:
        names: of the task of each id.
        unsure: how many were sent to a broker that did not answer: nobody knows whether they are queued.
        done: names of those that have a result.
        ends: how many ended with each state of Celery's, failures by the name of their error.
    """

    def __init__(self, app: Any, redis: Redis, rate: float) -> None:
        """Send nothing yet; `rate` is in jobs per second."""
        self._app, self._redis, self._rate = app, redis, rate
        self.names: dict[str, str] = {}
        self.unsure = 0
        self.done: set[str] = set()
        self.ends: Counter[str] = Counter()
        self.open: dict[str, None] = {}
        self._begun = self._looked = time.monotonic()

    def keep_up(self, *, sending: bool = True) -> None:
        """Send what is due, and look what has ended, if it is time."""
        now = time.monotonic()
        due = round((now - self._begun) * self._rate) - len(self.names) if sending else 0
        for _ in range(min(due, AT_ONCE)):
            self._send(f"battle-{len(self.names) + self.unsure}", random.choices(list(MIX), list(MIX.values()))[0])
        if now - self._looked >= LOOK_EVERY:
            self._looked = now
            self._look()

    def _send(self, name: str, sort: str) -> None:
        lane = random.choices(list(LANES), list(LANES.values()))[0]
        text = name * (LONG // len(name)) if sort == "long" else name
        seconds = random.uniform(*STREAMED) if sort == "slow" else 0.0
        params = {
            "model": "claude-sonnet-4-5",
            "max_tokens": max(16, round(seconds * PACE)) if not seconds else round(seconds * PACE),
            "messages": [{"role": "user", "content": text}],
            "metadata": {"user_id": name},
        }
        options = {"countdown": random.uniform(*PUT_OFF)} if sort == "delayed" else {}
        task = STREAM_TASK if sort == "slow" else CREATE_TASK
        try:
            result = send(self._app, task, lane_of(self._app, lane), params, wait=60, **options)
        except MaybeQueued:
            self.unsure += 1
            return
        self.names[result.id] = name
        self.open[result.id] = None

    def _look(self) -> None:
        ids = list(self.open)
        texts = self._redis.mget([f"celery-task-meta-{task_id}" for task_id in ids]) if ids else []
        for task_id, text in zip(ids, texts, strict=True):
            meta = json.loads(text) if text else {}
            if meta.get("status") in {"SUCCESS", "FAILURE", "REVOKED"}:
                del self.open[task_id]
                self.ends[_end(meta)] += 1
                if meta["status"] == "SUCCESS":
                    self.done.add(self.names[task_id])


def _end(meta: dict[str, Any]) -> str:
    return meta["status"] if meta["status"] == "SUCCESS" else str(meta["result"]["exc_type"])
