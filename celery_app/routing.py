"""From a queue's name to its lane: priority, headers, and a loud no to a lane's misspelt name."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from celery.app.routes import Router, prepare
from kombu import Exchange, Queue

from celery_app.broker.rules import LANE_NAMES, LaneRules
from celery_app.lanes import LANES, NORMAL, Lane

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Seconds since the epoch, set once when a job is first submitted and kept through every return.
SUBMITTED_AT = "submitted_at"
#: Seconds since the epoch after which the job is pointless; absent where the lane has no deadline.
DEADLINE_AT = "deadline_at"
#: The model that a job will call, so that the broker can let others pass while this one's budget is used up.
MODEL = "lanes_model"

#: Whose job it is; absent: nobody's in particular.
TENANT = "lanes_tenant"
#: What a job takes out of its budget, as `celery_app.broker.packet` writes it; absent: nothing is reserved.
COST = "lanes_cost"
#: The beginning of a job's prompt that the API's cache may have, as `celery_app.budget.prefix` writes it; absent: its
#: lane does not ask.
PREFIX = "lanes_prefix"
#: What the batch of a job may cost, in nanodollars; absent: whatever it costs.
CAP = "lanes_cap"
#: Name under which a job is to be the only one of its task, and the seconds for which that lasts after its end.
UNIQUE, UNIQUE_FOR = "lanes_unique", "lanes_unique_for"

#: Seconds below which a number is a time or a duration (the year 5138); beyond, it is milliseconds, or nonsense.
_LAST_SECOND = 1e11

_PRIORITIES = {lane.name: lane.priority for lane in LANES}


def lane_queue(lane: Lane) -> Queue:
    """Return the queue of a lane, with an exchange and a routing key of its own.

    Without them a queue inherits the default exchange *and* key, and three such queues share one binding.
    """
    return Queue(lane.name, exchange=Exchange(lane.name, type="direct"), routing_key=lane.name)


class LaneRouter:
    """Gives a job in a lane its priority and its times; anything else goes where the project's own routes send it.

    Celery asks a router even when ``queue=`` is given, and lays the caller's own options over what it returns, so
    an explicit ``priority=`` stays.
    """

    def __init__(self, rules: LaneRules, other_routes: Any) -> None:
        self._rules = rules
        # Celery's own way through them: a route may be a name to be imported, or a router of before Celery 4.
        self._routes = Router(prepare(other_routes))

    def __call__(
        self, name: str, args: Any, kwargs: Any, options: dict[str, Any], task: Any = None, **_: Any
    ) -> dict[str, Any] | None:
        """Return the route of one job, or None to leave it to Celery's default queue."""
        route = self._project_route(name, args, kwargs, options, task)
        queue = options.get("queue") or route.get("queue") or _home(task, {**route, **options})
        lane_name = str(getattr(queue, "name", queue))
        if lane_name not in LANE_NAMES:
            return route or None
        lane = self._rules.lane(lane_name)
        options["headers"] = stamped(lane or NORMAL, options.get("headers"), time.time())
        return {**route, "queue": lane_name, "priority": route.get("priority", _PRIORITIES[lane_name])}

    def _project_route(self, name: str, args: Any, kwargs: Any, options: Any, task: Any) -> dict[str, Any]:
        """The project's own routes still say where a task goes, as they did before the lanes came."""
        found = self._routes.lookup_route(name, args, kwargs, options, task)
        return {"queue": found} if isinstance(found, str) else dict(found or {})


def _home(task: Any, options: Mapping[str, Any]) -> str | None:
    """A lane task sent to no particular place belongs in `normal`."""
    if options.get("exchange") or options.get("routing_key") or not getattr(task, "in_lanes", False):
        return None
    return NORMAL.name


def seconds(header: Any) -> float | None:
    """Return a header as a time or a duration; a stock producer may have written anything, and what is none is None."""
    is_number = isinstance(header, int | float) and not isinstance(header, bool)
    return float(header) if is_number and 0 <= header < _LAST_SECOND else None


def stamped(lane: Lane, headers: Mapping[str, Any] | None, now: float) -> dict[str, Any]:
    """Return the headers with the times of a job submitted at `now`; times already there stay."""
    stamps: dict[str, Any] = {SUBMITTED_AT: now, **(headers or {})}
    if seconds(stamps[SUBMITTED_AT]) is None:
        stamps[SUBMITTED_AT] = now
    if not lane.prompt_caches:
        stamps.pop(PREFIX, None)  # stated for whichever lane it would be
    if lane.deadline is not None:
        stamps.setdefault(DEADLINE_AT, stamps[SUBMITTED_AT] + lane.deadline)
    return stamps
