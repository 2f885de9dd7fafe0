"""Memory, connections and threads of processes over time, and whether any of them grows."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: Seconds after a process' start that do not count, nor does the first half of its life: it imports, and fills its
#: allocator and, fault by fault, its pools of connections.
WARM_UP = 90.0

#: Seconds that are looked at, at least, and samples that a slope is taken of at most.
SHORTEST, MOST_SAMPLES = 90.0, 300


class Bound(NamedTuple):
    """How much may grow: by the hour, and in all, since a short look is a coarse one."""

    per_hour: float
    in_all: float


#: A job that leaks 1 kB makes 36 MB of 10 jobs a second in an hour. What is never given back by an allocator is less
#: than `in_all`.
BOUNDS = {
    "memory MB": Bound(per_hour=12.0, in_all=8.0),
    "files": Bound(per_hour=6.0, in_all=20.0),
    "threads": Bound(per_hour=2.0, in_all=3.0),
    "keys kept for good": Bound(per_hour=20.0, in_all=40.0),
}


@dataclass(frozen=True, slots=True)
class Slope:
    """How a measure of something moved: its median, its growth by the hour, and for how many seconds it was seen."""

    what: str
    measure: str
    median: float
    per_hour: float
    seconds: float

    @property
    def grows(self) -> bool:
        """Whether it is more than its bound, by the hour and in all."""
        bound = BOUNDS[self.measure]
        return self.per_hour > bound.per_hour and self.per_hour * self.seconds / 3600 > bound.in_all

    def __str__(self) -> str:
        return (
            f"{self.what}: {self.measure} {self.median:.0f}, {self.per_hour:+.1f} an hour over {self.seconds:.0f} s"
            + (" GROWS" if self.grows else "")
        )


def slope_of(points: Sequence[tuple[float, float]]) -> float:
    """Return what values grow by in an hour: the median of the slopes between all pairs (Theil and Sen).

    Up to 29 % of the points may be as wrong as they like.

    Args:
        points: seconds and values; at least two.
    """
    few = points[:: max(1, len(points) // MOST_SAMPLES)]
    return 3600 * statistics.median((b - a) / (t - s) for (s, a), (t, b) in combinations(few, 2) if t > s)


class Samples:
    """Series of values by what was looked at and what was measured."""

    def __init__(self) -> None:
        self._series: defaultdict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)

    def add(self, what: str, measure: str, at: float, value: float) -> None:
        """Add a value."""
        self._series[what, measure].append((at, value))

    def look_at(self, what: str, pid: int, at: float) -> None:
        """Add a process' figures, if it is there."""
        for measure, value in figures_of(pid):
            self.add(what, measure, at, value)

    def slopes(self) -> list[Slope]:
        """Return the slopes of all that was seen for long enough."""
        found = []
        for (what, measure), points in sorted(self._series.items()):
            warm = points[len(points) // 2 :]
            seconds = warm[-1][0] - warm[0][0]
            if seconds >= SHORTEST and warm[0][0] - points[0][0] >= WARM_UP:
                middle = statistics.median(value for _, value in warm)
                found.append(Slope(what, measure, middle, slope_of(warm), seconds))
        return found


def figures_of(pid: int) -> Iterator[tuple[str, float]]:
    """Yield the measures of a process, as Linux tells them; none if it is gone."""
    process = Path(f"/proc/{pid}")
    try:
        lines = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        files = len(list((process / "fd").iterdir()))
    except OSError:
        return
    if "VmRSS" in lines:
        yield "memory MB", int(lines["VmRSS"].split()[0]) / 1024
        yield "files", float(files)
        yield "threads", float(lines["Threads"])
