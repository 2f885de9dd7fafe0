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
from celery_app.errors import BrokerUnreachable, UnknownLane
from celery_app.lanes import LANES, NORMAL, Lane
from celery_app.stand_in import TEST_BROKER, stand_in

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
        """Celery's way of a message to the broker; where `celery_app.testing` stands in, a lane's jobs go there."""
        send = self._create_task_sender()

        def send_or_hand_over(
            producer: Any, name: str, message: Any, queue: Any = None, routing_key: str | None = None, **options: Any
        ) -> Any:
            lane, standing_in = self._lane_of(queue or routing_key), stand_in()
            if lane is not None and standing_in is not None:
                return standing_in.take(self.app, lane, message, options)
            if lane is not None and self.app.conf.broker_write_url.startswith(TEST_BROKER):
                raise BrokerUnreachable(url=TEST_BROKER, reason="it keeps nothing; celery_app.testing would answer")
            return send(producer, name, message, queue=queue, routing_key=routing_key, **options)

        return send_or_hand_over

    def _lane_of(self, queue: Any) -> Lane | None:
        from celery_app.settings import settings_of

        return settings_of(self.app).lane(getattr(queue, "name", queue))


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
