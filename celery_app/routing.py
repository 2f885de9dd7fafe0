"""From a queue's name to its lane: priority, headers, and a loud no to any other name."""

from __future__ import annotations

import difflib
import time
from functools import cached_property
from typing import TYPE_CHECKING, Any

from celery.app.amqp import AMQP, Queues
from celery.app.routes import prepare
from kombu import Exchange, Queue

from celery_app.broker.connection import LaneConnection
from celery_app.descriptions import describe_message
from celery_app.errors import UnknownLane
from celery_app.lanes import LANES, NORMAL, Lane

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: Seconds since the epoch, set once when a job is first submitted and kept through every return.
SUBMITTED_AT = "submitted_at"
#: Seconds since the epoch after which the job is pointless; absent where the lane has no deadline.
DEADLINE_AT = "deadline_at"
#: The model that a job will call, so that the broker can let others pass while this one's budget is used up.
MODEL = "lanes_model"


def lane_queue(lane: Lane) -> Queue:
    """Return the queue of a lane, with an exchange and a routing key of its own.

    Without them a queue inherits the default exchange *and* key, and three such queues share one binding.
    """
    return Queue(lane.name, exchange=Exchange(lane.name, type="direct"), routing_key=lane.name)


class LaneQueues(Queues):
    """Queues that name the lanes when asked for one that does not exist."""

    def __missing__(self, name: str) -> Queue:
        """Refuse a name that no queue has."""
        if self.create_missing:
            return super().__missing__(name)
        nearest = difflib.get_close_matches(name, self, n=1)
        hint = f" (did you mean {nearest[0]!r}?)" if nearest else ""
        raise UnknownLane(name=name, hint=hint, lanes=", ".join(lane.name for lane in LANES))


class LaneAMQP(AMQP):
    """Celery's message layer with `LaneQueues`, over the lanes' broker."""

    Connection = LaneConnection
    queues_cls = LaneQueues

    def __init__(self, app: Any) -> None:
        """Refuse to send anything for an application whose settings are wrong."""
        from celery_app.settings import settings_of  # pydantic is not wanted before the first use

        settings_of(app)
        super().__init__(app)

    @cached_property
    def send_task_message(self) -> Any:
        """Celery's function that sends a task's message; ours has it show no arguments."""
        send, lanes = self._create_task_sender(), {lane.name for lane in LANES}

        def send_task_message(producer: Any, name: str, message: Any, *args: Any, **options: Any) -> Any:
            queue = options.get("queue")
            in_lane = str(getattr(queue, "name", queue)) in lanes
            return send(producer, name, describe_message(self.app, message, in_lane=in_lane), *args, **options)

        return send_task_message


class LaneRouter:
    """Gives a job in a lane its priority and its times; anything else passes untouched.

    Celery asks a router even when ``queue=`` is given, and lays the caller's own options over what it returns, so
    an explicit ``priority=`` stays.
    """

    def __init__(self, lanes: Iterable[Lane], other_routes: Any) -> None:
        """Keep the lanes, and the project's own ``task_routes``."""
        self._lanes = {lane.name: lane for lane in lanes}
        self._routes = prepare(other_routes)

    def __call__(
        self, name: str, args: Any, kwargs: Any, options: dict[str, Any], task: Any = None, **_: Any
    ) -> dict[str, Any] | None:
        """Return the route of one job, or None to leave it to Celery's default queue."""
        route = self._project_route(name, args, kwargs, options, task)
        queue = options.get("queue") or route.get("queue") or self._home(task, {**route, **options})
        lane = self._lanes.get(str(getattr(queue, "name", queue)))
        if lane is None:
            return route or None
        options["headers"] = stamped(lane, options.get("headers"), time.time())
        return {**route, "queue": lane.name, "priority": route.get("priority", lane.priority)}

    def _project_route(self, name: str, args: Any, kwargs: Any, options: Any, task: Any) -> dict[str, Any]:
        """The project's own routes still say where a task goes, as they did before the lanes came."""
        for route in self._routes:
            found = route(name, args, kwargs, options, task=task)
            if found is not None:
                return {"queue": found} if isinstance(found, str) else dict(found)
        return {}

    def _home(self, task: Any, options: Mapping[str, Any]) -> str | None:
        """A lane task sent to no particular place belongs in `normal`."""
        if options.get("exchange") or options.get("routing_key") or not getattr(task, "in_lanes", False):
            return None
        return NORMAL.name


def stamped(lane: Lane, headers: Mapping[str, Any] | None, now: float) -> dict[str, Any]:
    """Return the headers with the times of a job submitted at `now`; times already there stay."""
    stamps: dict[str, Any] = {SUBMITTED_AT: now, **(headers or {})}
    if not isinstance(stamps[SUBMITTED_AT], int | float):
        stamps[SUBMITTED_AT] = now
    if lane.deadline is not None:
        stamps.setdefault(DEADLINE_AT, stamps[SUBMITTED_AT] + lane.deadline)
    return stamps
