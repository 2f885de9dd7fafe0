"""What happened since the last time somebody asked: counters that can be added to others."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING

from celery_app.metrics.distribution import CALLS, INPUT_TOKENS, OUTPUT_TOKENS, WAITS
from celery_app.metrics.histogram import bucket_of

if TYPE_CHECKING:
    from celery_app.metrics.events import JobEvent

#: Sums are kept in whole microseconds: they add up exactly, and 2^53 of them are 285 years.
US_PER_S = 1_000_000


#: The sum and the longest of some times, in µs, beside their buckets.
SUM, LONGEST = "sum_us", "longest_us"

#: Statuses that are counted by themselves; of all others their class, so that a gateway cannot invent counters.
STATUSES = ("429", "529", "4xx", "5xx", "none")


def status_of(status: int) -> str:
    """Return under which name a status is counted, one of `STATUSES`; ``none`` is a call without an answer."""
    name = str(status)
    if name in STATUSES:
        return name
    family = f"{status // 100}xx"
    return family if family in STATUSES else "none"


class TimesTally:
    """The times of one kind: bucket -> how many, and under `SUM` and `LONGEST` the sum and the longest of them."""

    __slots__ = ("fields",)

    def __init__(self) -> None:
        self.fields: dict[int | str, int] = defaultdict(int)

    def add(self, seconds: float) -> None:
        """Count a time."""
        # The publisher's clock may run ahead of ours: nobody waited for less than nothing.
        microseconds = max(0, int(seconds * US_PER_S))
        self.fields[bucket_of(seconds)] += 1
        self.fields[SUM] += microseconds
        self.fields[LONGEST] = max(self.fields[LONGEST], microseconds)


class LaneTally:
    """The counters of one lane; bounded by the kinds of events and the buckets, however long nobody collects them."""

    __slots__ = ("calls", "counts", "waits")

    def __init__(self) -> None:
        self.counts: dict[str, int] = defaultdict(int)
        self.waits, self.calls = TimesTally(), TimesTally()

    def add_wait(self, seconds: float) -> None:
        """Count how long a call waited."""
        WAITS.add(self.counts, seconds)
        self.waits.add(seconds)

    def add_call(self, event: JobEvent) -> None:
        """Count what came of a call; one that never left is none."""
        if event.outcome == "unsent":
            return
        self.counts[f"outcome:{event.outcome}"] += 1
        if event.outcome != "answered":
            self.counts[f"status:{status_of(event.status)}"] += 1
        CALLS.add(self.counts, event.seconds)
        self.calls.add(event.seconds)
        self.add_tokens(event)

    def add_tokens(self, event: JobEvent) -> None:
        """Count what a call used."""
        if event.tokens is not None:
            INPUT_TOKENS.add(self.counts, event.tokens[0])
            OUTPUT_TOKENS.add(self.counts, event.tokens[1])

    def as_dict(self) -> dict[str, object]:
        """Return the counters by name."""
        return {"counts": self.counts, "waits": self.waits.fields, "calls": self.calls.fields}


class Tally:
    """The counters of all lanes; not thread-safe."""

    __slots__ = ("_lanes",)

    def __init__(self) -> None:
        self._lanes: dict[str, LaneTally] = defaultdict(LaneTally)

    def __bool__(self) -> bool:
        return bool(self._lanes)

    def add(self, event: JobEvent) -> None:
        """Count one event."""
        lane = self._lanes[event.lane]
        lane.counts[event.kind] += 1
        if event.kind == "called":
            lane.add_wait(event.seconds)
        elif event.kind == "settled":
            lane.add_call(event)
        elif event.kind == "landed":
            lane.add_tokens(event)

    def as_json(self) -> str:
        """Return the counters by lane, as ``record.lua`` takes them."""
        return json.dumps({name: lane.as_dict() for name, lane in self._lanes.items()})
