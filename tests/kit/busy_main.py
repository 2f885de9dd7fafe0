"""The project with lanes, whose worker's main thread is held up as it receives the job "held"."""

from typing import Any

from celery import signals

from kit.jobs import AT_GATE, event_log
from kit.project import app


@signals.task_received.connect
def hold(request: Any, **_: Any) -> None:
    """Wait at the gate "main"."""
    if request.id == "held":
        event_log().write("held", request.id, request.hostname)
        event_log().wait_at_gate("main", AT_GATE)


__all__ = ["app"]
