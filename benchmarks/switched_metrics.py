"""The lanes' application whose workers count or not, as they are told: for benchmarks/metrics_cost.py."""

from __future__ import annotations

from typing import Any

from celery.worker.control import control_command

from celery_app.app import app
from celery_app.metrics import events

__all__ = ["app"]

_observers: list[events.Observer] = []


@control_command(args=[("on", bool)])
def count(_state: Any, on: bool) -> dict[str, Any]:
    """Begin to count, or stop."""
    for observer in () if on else tuple(events._observers):  # noqa: SLF001 - nobody else takes the metrics away
        events.unsubscribe(observer)
        _observers.append(observer)
    while on and _observers:
        events.subscribe(_observers.pop())
    return {"ok": on}
