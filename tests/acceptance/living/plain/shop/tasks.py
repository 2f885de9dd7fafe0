"""The shop's tasks."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celery import Task, shared_task
from celery.exceptions import Reject, SoftTimeLimitExceeded

from shop.celery import app


@dataclass(frozen=True)
class Order:
    """An object that only pickle carries."""

    number: int
    items: frozenset[str]


class Declined(Exception):
    """The bank says no."""

    def __init__(self, code: int) -> None:
        """Keep the bank's code."""
        super().__init__(code)
        self.code = code


def note(line: Any) -> None:
    """Write a line where the suite reads it, at once and whole."""
    with Path(os.environ["SHOP_EVENT_LOG"]).open("a") as event_log:
        event_log.write(f"{line}\n")


@app.task
def pack(order: Order) -> Order:
    """Take an object and return one."""
    return Order(order.number + 1, order.items | {"receipt"})


@app.task
def decline(code: int) -> None:
    """Fail with an exception of the shop's own."""
    raise Declined(code)


@app.task
def add(x: int, y: int) -> int:
    """Add."""
    return x + y


@app.task
def total(numbers: list[int]) -> int:
    """Add up."""
    return sum(numbers)


def _where(self: Task[Any, Any]) -> str:
    return str(self.request.delivery_info["routing_key"])


mail = app.task(bind=True, name="shop.tasks.mail")(_where)
yearly = app.task(bind=True, name="shop.reports.yearly")(_where)
thumbnail = app.task(bind=True, name="shop.images.thumbnail")(_where)


@app.task(bind=True)
def ship(self: Task[Any, Any], region: str = "") -> str:
    """Say which queue it came from."""
    return _where(self)


@app.task
def tick() -> None:
    """What beat sends."""
    note("tick")


@app.task(bind=True)
def told(self: Task[Any, Any]) -> dict[str, Any]:
    """Return what the worker says of this job."""
    request = self.request
    return {
        "eta": request.eta,
        "at": time.time(),
        "retries": request.retries,
        "headers": dict(request.headers or {}),
        "priority": request.delivery_info["priority"],
        "redelivered": request.delivery_info["redelivered"],
    }


@app.task(bind=True, max_retries=3)
def stubborn(self: Task[Any, Any], successes_at: int) -> int:
    """Retry until it works."""
    if self.request.retries < successes_at:
        raise self.retry(countdown=0.05, exc=Declined(self.request.retries))
    return self.request.retries


@app.task(autoretry_for=(Declined,), retry_backoff=False, default_retry_delay=0.05, max_retries=2)
def stubborn_by_itself() -> None:
    """Fail again and again."""
    note("try")
    raise Declined(1)


@app.task(bind=True, acks_late=True)
def not_yet(self: Task[Any, Any], times: int, name: str) -> str:
    """Put itself back into the queue a number of times."""
    note(f"not_yet {name} {self.request.delivery_info['redelivered']}")
    done = Path(os.environ["SHOP_EVENT_LOG"]).read_text().count(f"not_yet {name} ")
    if done <= times:
        raise Reject("not yet", requeue=True)
    return name


@app.task(acks_late=True)
def never(name: str) -> None:
    """Throw itself away."""
    note(f"never {name}")
    raise Reject("never", requeue=False)


@app.task
def remember(line: str, seconds: float = 0.0) -> None:
    """Write a line, and take a while."""
    note(line)
    time.sleep(seconds)


@app.task(acks_late=True)
def remember_late(line: str, seconds: float = 0.0) -> None:
    """Do the same with the acknowledgement at the end."""
    note(line)
    time.sleep(seconds)


@app.task(ignore_result=True)
def charge(card: str, seconds: float) -> None:
    """Charge a card: must not happen twice, so it is acknowledged before it begins."""
    note(f"charged {card}")
    time.sleep(seconds)


@app.task(time_limit=1)
def endless() -> None:
    """Run until it is ended."""
    time.sleep(60)


@app.task(soft_time_limit=1)
def almost_endless() -> str:
    """Notice that its time is up."""
    try:
        time.sleep(60)
    except SoftTimeLimitExceeded:
        return "cleaned up"
    return "never"


@app.task(rate_limit="100/s")
def limited(n: int) -> int:
    """Have Celery's own rate limit."""
    return n


@shared_task
def shared(x: int) -> int:
    """Belong to whichever application there is."""
    return x


@app.task
def asleep(seconds: float) -> str:
    """Sleep; on gevent, many of these sleep at once."""
    time.sleep(seconds)
    return "awake"
