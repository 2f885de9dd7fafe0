"""The queues of an application with lanes: its own, and three more."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from celery.app.amqp import Queues

from celery_app.broker.rules import LANE_NAMES
from celery_app.errors import UnknownLane
from celery_app.lanes import LANES
from celery_app.routing import lane_queue

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kombu import Queue

#: How alike two names are from which on one is taken for the other misspelt, by difflib's ratio: "critcal" and
#: "critical" 0.93, "batches" and "batch" 0.83; "batch-emails" 0.59.
_MISSPELT = 0.8


class LaneQueues(Queues):
    """Celery's queues, which know the lanes by name but do not list them.

    Whoever goes through a project's queues means those that it declared: `celery purge` without ``-Q``, for one. What
    `task_create_missing_queues` makes of other names is Celery's business.

    Attributes:
        routed: names that the project's routes mention, however much one looks like a lane's.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Have the lanes at hand; a worker serves them only where ``-Q`` says so."""
        super().__init__(*args, **kwargs)
        self.routed: frozenset[str] = frozenset()
        self._lanes = {lane.name: lane_queue(lane) for lane in LANES}

    def serve_lanes(self, *names: str) -> None:
        """List the lanes, or some of them, and have a worker without ``-Q`` serve them."""
        lanes = {name: queue for name, queue in self._lanes.items() if not names or name in names}
        self.update(lanes)
        self._default_consume_from.update(lanes)

    def __contains__(self, name: object) -> bool:
        """Whether there is such a queue; `celery control add_consumer` asks so before it makes one."""
        return super().__contains__(name) or name in self._lanes

    def __missing__(self, name: str) -> Queue:
        """Find a lane, or make a queue that is not declared; not one by a lane's name misspelt: who would serve it?

        Raises:
            UnknownLane: it is.
            KeyError: `task_create_missing_queues` is off.
        """
        if name in self._lanes:
            return self._lanes[name]
        if name not in self.routed and nearest_lane(name):
            refuse(name)
        return super().__missing__(name)


def nearest_lane(name: str) -> str | None:
    """Return the lane whose name may have been meant, None where it is another name altogether.

    A lane's whole name with a number or a word beside it (``batch2``, ``critical_eu``) is nobody's slip of the hand.
    """
    words = re.findall(r"[^\W\d_]+|\d+", str(name).lower())
    if len(words) > 1 and not {*words}.isdisjoint(LANE_NAMES):
        return None
    near = difflib.get_close_matches(str(name).strip().lower(), LANE_NAMES, n=1, cutoff=_MISSPELT)
    return near[0] if near else None


def refuse(name: str) -> NoReturn:
    """Say that there is no such queue.

    Raises:
        UnknownLane: always.
    """
    nearest = nearest_lane(name)
    hint = f" (did you mean {nearest!r}?)" if nearest else ""
    raise UnknownLane(name=name, hint=hint, lanes=", ".join(LANE_NAMES))


def names_in(routes: Any) -> Iterator[str]:
    """Yield the queues that ``task_routes`` mentions; a function's cannot be known."""
    if isinstance(routes, list | tuple):
        for each in routes:
            yield from names_in(each)
    elif isinstance(routes, Mapping):
        for target in routes.values():
            queue = target.get("queue") if isinstance(target, Mapping) else target
            if queue is not None:
                yield str(getattr(queue, "name", queue))
