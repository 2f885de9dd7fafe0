"""The metrics in Redis: totals for good, and time slots as far back as a window may reach; see `celery_app.keys`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from celery_app.keys import SLOTS_KEPT, TOTALS
from celery_app.metrics.tally import LONGEST, SUM, US_PER_S, Tally
from celery_app.script import Script

if TYPE_CHECKING:
    from collections.abc import Iterable

    from redis import Redis
    from redis.client import Pipeline

#: Seconds; a sixth of the minute that a throughput is taken from.
COUNTS_SLOT = 10

#: Seconds; a tenth of the usual window. A slot may have hundreds of buckets, and Redis adds up 2 of them in 1 µs while
#: it does nothing else: slots of 10 s would hold up a claim for 3 ms, these for 1 ms.
WAITS_SLOT = 30

_RECORD = Script("record", package="celery_app.metrics")
RECALL = Script("recall", package="celery_app.metrics")

_MS_PER_S = 1000


@dataclass(frozen=True, slots=True)
class Times:
    """Some times.

    Attributes:
        buckets: of the histogram -> how many fell into it.
        total_s: their sum, seconds.
        longest_s: the longest of them, seconds.
    """

    buckets: dict[int, int]
    total_s: float
    longest_s: float

    @classmethod
    def of(cls, flat: list[Any]) -> Times:
        """Read the script's reply."""
        buckets = _by_field(flat)
        total_us, longest_us = buckets.pop(SUM, 0), buckets.pop(LONGEST, 0)
        counts = {int(bucket): count for bucket, count in buckets.items()}
        return cls(counts, total_us / US_PER_S, longest_us / US_PER_S)


@dataclass(frozen=True, slots=True)
class LaneActivity:
    """What happened in a lane.

    Attributes:
        totals: kind of event -> how many there ever were.
        counts: kind of event -> how many there were lately.
        counted_s: seconds that `counts` covers.
        waits: lately, from submission to the call leaving.
        calls: how long calls took lately.
    """

    totals: dict[str, int]
    counts: dict[str, int]
    counted_s: float
    waits: Times
    calls: Times


def record(client: Redis, prefix: str, sender: str, number: int, tally: Tally) -> None:
    """Add a tally to what is in Redis, in one round trip.

    Args:
        client: without a key prefix of its own.
        prefix: what stands before every key of the broker.
        sender: unique to the process.
        number: of this tally; sending it again under the same number, right after, changes nothing.
        tally: what to add.

    Raises:
        redis.exceptions.RedisError: if Redis is away; the tally may be in or not.
    """
    _RECORD.run(client, (), [prefix, sender, number, COUNTS_SLOT, WAITS_SLOT, SLOTS_KEPT, tally.as_json()])


def ask(pipe: Pipeline, prefix: str, lanes: Iterable[str], counts_window: float, waits_window: float) -> None:
    """Queue the questions about `lanes` on a pipeline; `activities` reads the answers.

    Args:
        pipe: of a client without a key prefix of its own.
        prefix: what stands before every key of the broker.
        lanes: their names.
        counts_window: seconds to look back for counts, 600 at most; the slot it begins in is taken whole.
        waits_window: the same for waits and calls.
    """
    pipe.hgetall(TOTALS.of(prefix))
    for lane in lanes:
        RECALL.add_to(pipe, (), [prefix, lane, COUNTS_SLOT, counts_window, WAITS_SLOT, waits_window])


def activities(lanes: Iterable[str], answers: list[Any]) -> dict[str, LaneActivity]:
    """Return what happened in each of the lanes that were asked about, from the pipeline's answers."""
    totals, *rest = answers
    return {lane: _activity(_totals_of(lane, totals), *answer) for lane, answer in zip(lanes, rest, strict=True)}


def _totals_of(lane: str, totals: dict[bytes, bytes]) -> dict[str, int]:
    counts = {name.decode().partition(":"): int(count) for name, count in totals.items()}
    return {kind: count for (name, _, kind), count in counts.items() if name == lane}


def _activity(
    totals: dict[str, int], counted_ms: int, counts: list[Any], waits: list[Any], calls: list[Any]
) -> LaneActivity:
    return LaneActivity(totals, _by_field(counts), counted_ms / _MS_PER_S, Times.of(waits), Times.of(calls))


def _by_field(flat: list[Any]) -> dict[str, int]:
    return {field.decode(): value for field, value in zip(flat[::2], flat[1::2], strict=True)}
