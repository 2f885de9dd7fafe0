"""How many jobs the lanes have, for Flower's page of queues and its API: they are in no list that it could count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery_app.broker.rules import LANE_NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from celery_app.flower.watch import Watch


class QueueCounts:
    """Stands for Flower's own broker: lanes are counted by the lanes, other queues by Flower."""

    def __init__(self, own: Any, watch: Watch) -> None:
        self._own, self._watch = own, watch

    async def queues(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """Return a row for each queue: all lanes, whether a worker serves them or not, and those of these names.

        A lane's ``messages`` are its jobs that are queued or wait for a time: what a list would hold. While the broker
        is away a lane has no numbers.
        """
        others = [name for name in names if name not in LANE_NAMES]
        seen = await self._watch.seen()
        found = [] if seen.problem else await self._own.queues(others)
        lanes = {} if seen.problem else seen.shown["lanes"]
        return [*(_row(name, lanes.get(name)) for name in LANE_NAMES), *found]


def _row(name: str, lane: dict[str, Any] | None) -> dict[str, Any]:
    if lane is None:
        return {"name": name, "messages": None}
    return {
        "name": name,
        "messages": lane["depth"] + lane["returning"],
        "messages_unacknowledged": lane["in_flight"],
        "messages_ready": lane["depth"],
        "consumers": lane["workers"],
    }
