"""How many jobs each lane has, and where they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from celery_app.scheduler.scripts import STATS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from redis import Redis

    from celery_app.lanes import Lane

#: kombu's wire format: step 0 is the list with the queue's bare name, the others are ``name + SEPARATOR + step``.
PRIORITY_STEPS = "0,3,6,9"
SEPARATOR = "\x06\x16"

#: The Lua script gives ages in milliseconds.
_MS_PER_S = 1000


@dataclass(frozen=True, slots=True)
class LaneStats:
    """The jobs of one lane; each job is counted in exactly one place.

    Attributes:
        depth: jobs queued.
        oldest_s: seconds since the submission of the job that has been queued for the longest; None: no job, or one
            from a stock producer, which does not say when.
        in_flight: jobs that workers hold.
        returning: jobs that wait for the time of their return.
        dead: dead letters.
        shipped: jobs that are part of a batch of the API's.
    """

    depth: int
    oldest_s: float | None
    in_flight: int
    returning: int
    dead: int
    shipped: int = 0


def lane_stats(client: Redis, lanes: Iterable[Lane], prefix: str = "") -> dict[str, LaneStats]:
    """Count the jobs of `lanes`, in one round trip.

    Args:
        client: without a key prefix of its own.
        lanes: which to count.
        prefix: what stands before every key of the broker.

    Returns:
        The lane's name -> its jobs.

    Raises:
        redis.exceptions.RedisError: if the broker is away.
    """
    lanes = tuple(lanes)
    return lane_stats_of(lanes, STATS.run(client, *lane_stats_call(lanes, prefix)))


def lane_stats_call(lanes: Sequence[Lane], prefix: str) -> tuple[list[str], list[str]]:
    """Return KEYS and ARGV of the script."""
    return [], [prefix, SEPARATOR, PRIORITY_STEPS, *(lane.name for lane in lanes)]


def lane_stats_of(lanes: Sequence[Lane], reply: Any) -> dict[str, LaneStats]:
    """Return the script's reply by lane."""
    return {lane.name: _stats_of_row(*row) for lane, row in zip(lanes, reply, strict=True)}


def _stats_of_row(  # one argument for each number of the script's row
    depth: int, oldest_ms: int | None, in_flight: int, returning: int, dead: int, shipped: int
) -> LaneStats:
    oldest_s = None if oldest_ms is None else oldest_ms / _MS_PER_S
    return LaneStats(depth, oldest_s, in_flight, returning, dead, shipped)
