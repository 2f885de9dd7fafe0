"""Limits that are set at run time: a worker for lanes says no for tasks in lanes, and does as asked for any other.

Jobs in lanes that are revoked by remote control are cancelled there, too.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from celery import bootsteps
from celery.worker.control import Panel

from celery_app.broker.rules import LANE_NAMES
from celery_app.jobs.limits import RATE_REASON, TIME_REASON
from celery_app.worker.remote_revocations import revocations

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

#: The commands' arguments that are limits.
_LIMITS = ("rate_limit", "hard", "soft")

#: Their values that take a limit away; that is always in order.
_NO_LIMIT = (None, 0, "0", "")


class RemoteLimits(bootsteps.StartStopStep):
    """The step of a worker's consumer that looks at its remote control."""

    name = "lanes-limits"
    requires = ("celery.worker.consumer.control:Control",)

    def include_if(self, c: Any) -> bool:
        """Leave workers alone that serve no lane."""
        names = c.app.amqp.queues.consume_from
        return any(name in names for name in LANE_NAMES)

    def start(self, c: Any) -> None:
        """Put our answers before Celery's, in this worker's own table of commands."""
        # There is no box where worker_enable_remote_control is off.
        for box in (step.box for step in c.steps if hasattr(step, "box")):
            guards = _guards(processes="prefork" in type(c.pool).__module__)
            box.node.handlers = {**Panel.data, **guards, **revocations()}

    def stop(self, c: Any) -> None:
        """Leave the table; it goes with its worker."""


def _guards(*, processes: bool) -> dict[str, Callable[..., Any]]:
    refused = {"rate_limit": RATE_REASON} if processes else {"rate_limit": RATE_REASON, "time_limit": TIME_REASON}
    return {command: _guarded(command, reason) for command, reason in refused.items()}


def _guarded(command: str, reason: str) -> Callable[..., Any]:
    def guarded(state: Any, task_name: str | None = None, **arguments: Any) -> Any:
        task = state.app.tasks.get(task_name)
        limits = [value for name, value in arguments.items() if name in _LIMITS]
        if getattr(task, "in_lanes", False) and any(limit not in _NO_LIMIT for limit in limits):
            logger.warning("%s of %s is refused: %s", command, task_name, reason)
            return {"error": f"the task {task_name} runs in lanes: {reason}"}
        return Panel.data[command](state, task_name=task_name, **arguments)

    return guarded
