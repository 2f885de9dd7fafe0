"""How many slots each lane wants: one look says what is there, two looks say what comes."""

from __future__ import annotations

import math
import threading
from collections import deque
from typing import TYPE_CHECKING

from celery_app.metrics.distribution import CALLS
from celery_app.metrics.slots import TARGETS, USUAL_CALL, Load, slots_wanted

if TYPE_CHECKING:
    from celery_app.metrics.look import LaneLook, Look

#: Seconds over which arrivals are counted: long enough for a rate of a few a minute, short against a worker's start.
ARRIVALS_WINDOW = 60.0

#: Seconds: two looks at the same moment say nothing of what comes.
_SOON = 1.0


class Backlog:
    """Remembers a minute of looks; thread-safe."""

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._jobs: deque[tuple[float, dict[str, int]]] = deque()
        self._remembering = threading.Lock()

    def slots_wanted(self, found: Look) -> dict[str, int]:
        """Return lane -> slots beyond the busy ones; what `found` shows is remembered for the next time.

        Args:
            found: with the demand.
        """
        (before, then), now = self._remember(found)
        grown = {name: (now[name] - then[name]) / max(found.now - before, _SOON) for name in now}
        lanes = zip(found.lanes.items(), found.demand, strict=True)
        return {name: slots_wanted(_load(name, lane, grown[name], *demand)) for (name, lane), demand in lanes}

    def _remember(self, found: Look) -> tuple[tuple[float, dict[str, int]], dict[str, int]]:
        """Return the oldest look that counts, with the jobs that were there, and those that are there now."""
        jobs = {name: lane.place.depth + lane.place.in_flight for name, lane in found.lanes.items()}
        with self._remembering:
            self._jobs.append((found.now, jobs))
            while abs(found.now - self._jobs[0][0]) > ARRIVALS_WINDOW:  # however the clock was put
                self._jobs.popleft()
            return self._jobs[0], jobs


def _load(name: str, lane: LaneLook, grown: float, held: int, free: bytes, fed: bytes) -> Load:
    """Return what a lane has to do; `grown`: by how many jobs per second it has grown; the others are of the script."""
    happened, share = lane.happened, float(free)
    done = CALLS.number(happened.counts) / happened.counted_s
    return Load(
        queued=round(lane.place.depth * share),
        busy=lane.place.in_flight,
        # What comes and waits for a budget needs no slot: of a lane with such jobs only what leaves is known.
        arriving=max(0.0, done if held else done + grown),
        call_s=CALLS.mean(happened.counts) or CALLS.mean(happened.totals) or USUAL_CALL,
        target_s=TARGETS[name],
        fed=float(fed or math.inf),
        held=bool(held) and share == 0,
    )
