"""The site's tasks."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from celery import shared_task
from celery.exceptions import SoftTimeLimitExceeded
from django.db.models import F

from orders.models import Order


@shared_task
def mail_receipt(order: int) -> str:
    """Write to whoever ordered; nobody keeps the result."""
    Order.objects.filter(pk=order).update(mailed=F("mailed") + 1)
    return "mailed"


@shared_task(ignore_result=False)
def mail_count() -> int:
    """Count the mails."""
    return sum(Order.objects.values_list("mailed", flat=True))


@shared_task(bind=True, ignore_result=False)
def where(self: object) -> str:
    """Say which queue it came from."""
    return str(self.request.delivery_info["routing_key"])  # type: ignore[attr-defined]


@shared_task(ignore_result=False)
def mail_slowly() -> str:
    """Run into the site's soft time limit."""
    try:
        time.sleep(30)
    except SoftTimeLimitExceeded:
        return "cleaned up"
    return "never"


@shared_task(ignore_result=False, soft_time_limit=1, time_limit=2)
def mail_for_ever() -> None:
    """Hear of its own soft limit, and run into its own hard one."""
    while True:
        with suppress(SoftTimeLimitExceeded):
            time.sleep(30)


@shared_task(ignore_result=False)
def mail_by() -> int:
    """Say which process it is."""
    return os.getpid()


@shared_task(ignore_result=False)
def mail_broken() -> None:
    """Fail."""
    raise ValueError("broken")


@shared_task(ignore_result=False)
def add(x: int, y: int) -> int:
    """Add."""
    return x + y


@shared_task(ignore_result=False)
def total(numbers: list[int]) -> int:
    """Add up."""
    return sum(numbers)


@shared_task(bind=True)
def bill(self: object, order: int, path: str) -> None:
    """Charge for an order: acknowledged before it begins."""
    with Path(path).open("a") as book:
        book.write(f"{order}\n")
    time.sleep(1.5)
