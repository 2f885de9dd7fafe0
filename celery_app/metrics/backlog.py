"""How many slots each lane wants: one look says what is there, several say what comes."""

from __future__ import annotations

import math
import threading
from collections import deque
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from celery_app.metrics.distribution import CALLS
from celery_app.metrics.slots import TARGETS, USUAL_CALL, Load, slots_wanted

if TYPE_CHECKING:
    from celery_app.metrics.look import LaneLook, Look

#: Seconds of looks that are remembered: more than twice the minute that it takes to submit 100,000 jobs, so that these
#: are a backlog and no rate.
REMEMBERED = 300.0

#: Seconds: two looks closer to each other say nothing of what comes.
_CLOSE = 1.0


class _Seen(NamedTuple):
    """Jobs of a lane that are queued or in flight, and calls that were over, ever since."""

    present: int
    done: int


class Backlog:
    """Remembers some minutes of looks; thread-safe."""

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._seen: deque[tuple[float, dict[str, _Seen]]] = deque()
        self._remembering = threading.Lock()

    def slots_wanted(self, found: Look) -> dict[str, int]:
        """Return lane -> slots beyond the busy ones; what `found` shows is remembered for the next time.

        Args:
            found: with the demand.
        """
        seen = self._remember(found)
        lanes = zip(found.lanes.items(), found.demand, strict=True)
        return {
            name: slots_wanted(_load(name, lane, [(at, each[name]) for at, each in seen], *demand))
            for (name, lane), demand in lanes
        }

    def _remember(self, found: Look) -> list[tuple[float, dict[str, _Seen]]]:
        """Return what was seen lately, this look included."""
        seen = {name: _seen(lane) for name, lane in found.lanes.items()}
        with self._remembering:
            if self._seen and found.now < self._seen[-1][0]:
                self._seen.clear()  # the server's clock was put back
            self._seen.append((found.now, seen))
            while found.now - self._seen[0][0] > REMEMBERED:
                self._seen.popleft()
            return list(self._seen)


def _seen(lane: LaneLook) -> _Seen:
    return _Seen(lane.place.depth + lane.place.in_flight, CALLS.number(lane.happened.totals))


def _load(name: str, lane: LaneLook, seen: list[tuple[float, _Seen]], held: int, free: bytes, fed: bytes) -> Load:
    """Return what a lane has to do; the last three arguments are of ``scheduler/scripts/demand.lua``."""
    happened, share = lane.happened, float(free)
    return Load(
        queued=round(lane.place.depth * share),
        busy=lane.place.in_flight,
        arriving=_arriving(lane, seen, has_held=bool(held)),
        call_s=CALLS.mean(happened.counts) or CALLS.mean(happened.totals) or USUAL_CALL,
        target_s=TARGETS[name],
        fed=float(fed or math.inf),
        held=bool(held) and share == 0,
    )


def _arriving(lane: LaneLook, seen: list[tuple[float, _Seen]], *, has_held: bool) -> float:
    """Return the jobs that come in a second: as many as were done, and by how many those that are there have grown.

    It is the median of the times between looks. A pipeline that drops 1,000 jobs at once makes a backlog of them; taken
    for a rate that goes on, they would count twice.
    """
    rates = [
        # What comes and waits for a budget needs no slot: of a lane with such jobs only what leaves is known.
        (now.done - before.done + (0 if has_held else now.present - before.present)) / (at - since)
        for (since, before), (at, now) in pairwise(seen)
        if at - since >= _CLOSE
    ]
    return max(0.0, median(rates)) if rates else CALLS.number(lane.happened.counts) / lane.happened.counted_s
