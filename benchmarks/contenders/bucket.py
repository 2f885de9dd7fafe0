"""Stock Celery with pyrate-limiter's Redis bucket in front of the call: the strongest that can be put together.

A `RedisBucket` "distributed across hosts", and `try_acquire`, which blocks by default until there is a permit:
https://pyratelimiter.readthedocs.io/#redisbucket and https://pypi.org/project/pyrate-limiter. Celery as in stock.py.

`Shared` is one bucket for all lanes. `Split` gives batch a fixed share of 18 of 20 requests a second, and leaves
critical free: best as long as critical needs no more than the rest.
"""

from __future__ import annotations

import functools
import os
from typing import Any

from pyrate_limiter import Duration, Limiter, Rate, RedisBucket
from redis import Redis

from contenders.contender import RATE
from contenders.stock import Stock, answer, app

#: Requests a second of batch where the limit is split.
BATCH_RATE = 18


@functools.cache
def limiter(name: str, rate: int) -> Limiter:
    """Return this process's limiter of a bucket that all processes share."""
    redis = Redis.from_url(os.environ["CELERY_BROKER_URL"])
    return Limiter(RedisBucket.init([Rate(rate, Duration.SECOND)], redis, f"bucket:{name}"))


@app.task(bind=True, name="bucket.create_message", max_retries=None)
def create_message(self: Any, **params: Any) -> Any:
    """Wait for a permit, and call."""
    way, lane = os.environ.get("BUCKET"), self.request.delivery_info["routing_key"]
    if way == "shared":
        limiter("all", RATE).try_acquire("call")
    elif way == "split" and lane != "critical":
        limiter("batch", BATCH_RATE).try_acquire("call")
    return answer(self, params)


class Shared(Stock):
    """One bucket."""

    module, env, task = "contenders.bucket", (("BUCKET", "shared"),), create_message


class Split(Shared):
    """A bucket for batch."""

    env = (("BUCKET", "split"),)
