"""`python -m waiting lanes|bucket THREADS SECONDS`: threads that ask one bucket for a call again and again.

Says "ready", waits for the channel `begin`, and prints the seconds that each answer took. The bucket has enough
for all: what is measured is how many can be told so.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import sys
import threading
import time
from typing import TYPE_CHECKING

from redis import Redis

if TYPE_CHECKING:
    from collections.abc import Callable

#: Calls a minute: never reached.
PLENTY = 10**9


def connected() -> Redis:
    """Return a client that has a connection for each thread."""
    return Redis.from_url(os.environ["CELERY_BROKER_URL"], max_connections=int(sys.argv[2]) + 1)


def lanes() -> Callable[[], object]:
    """Ask as a call does that was not reserved for in its lane."""
    from celery_app.budget import Cost, budget_for
    from celery_app.lanes import CRITICAL
    from celery_app.settings import Limits, Settings

    client = connected()
    budget = budget_for(Settings(limits=Limits(rpm=PLENTY)), CRITICAL, "m")
    numbers, process = itertools.count(), os.getpid()

    def ask() -> None:
        name = f"{process}-{next(numbers)}"
        asked = budget.reserve(client, CRITICAL, Cost(characters=200, max_tokens=50), claim=(name, f"{process}:{name}"))
        if not asked.ticket:
            raise RuntimeError(asked)

    return ask


def bucket() -> Callable[[], object]:
    """Ask pyrate-limiter's."""
    from pyrate_limiter import Duration, Limiter, Rate, RedisBucket

    limiter = Limiter(RedisBucket.init([Rate(PLENTY, Duration.MINUTE)], connected(), "bucket:all"))
    return functools.partial(limiter.try_acquire, "call")


def asked(ask: Callable[[], object], until: float) -> list[float]:
    """Ask until then, and return how long each answer took."""
    took = []
    while (begun := time.monotonic()) < until:
        ask()
        took.append(time.monotonic() - begun)
    return took


def main() -> None:
    """Run the threads."""
    ask = {"lanes": lanes, "bucket": bucket}[sys.argv[1]]()
    threads, seconds, found = int(sys.argv[2]), float(sys.argv[3]), list[float]()
    ask()
    with connected() as redis, redis.pubsub() as heard:
        heard.subscribe("begin")
        print("ready", flush=True)
        next(message for message in heard.listen() if message["type"] == "message")
    until = time.monotonic() + seconds
    running = [threading.Thread(target=lambda: found.extend(asked(ask, until))) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    print(json.dumps([round(each, 5) for each in found]), flush=True)


if __name__ == "__main__":
    main()
