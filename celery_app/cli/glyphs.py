"""Figures in a few cells of a terminal: a number, a line of what it was, a bar of what there is."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_THOUSAND, _MILLION = 10_000, 1_000_000


class Glyphs(NamedTuple):
    """What a terminal can show.

    Attributes:
        steps: of a sparkline, the lowest first.
        full: a cell of a bar.
        empty: likewise.
        up_down: the keys of arrows.
    """

    steps: str
    full: str
    empty: str
    up_down: str

    def spark(self, values: Sequence[float | None], cells: int) -> str:
        """Return the last values, the highest of them as the highest step; a blank where nothing is known."""
        last = values[-cells:]
        most = max((value for value in last if value), default=0) or 1
        line = "".join(" " if value is None else self._step(value, most) for value in last)
        return line.rjust(cells)

    def _step(self, value: float, most: float) -> str:
        top = len(self.steps) - 1
        return self.steps[max(1 if value > 0 else 0, round(value / most * top))]

    def bar(self, part: float, marks: Mapping[str, float], cells: int) -> str:
        """Return a bar that is full to a part of it, with a letter at each of the parts that are marked."""
        filled = round(min(1.0, max(0.0, part)) * cells)
        bar = list(self.full * filled + self.empty * (cells - filled))
        for letter, at in marks.items():
            bar[min(cells - 1, max(0, int(at * cells)))] = letter
        return "".join(bar)


#: For a terminal that writes UTF-8, and for any other.
BLOCKS = Glyphs("▁▂▃▄▅▆▇█", "█", "░", "↑↓")
ASCII = Glyphs("_.-~=+*#", "#", ".", "arrows")


def glyphs_for(encoding: str) -> Glyphs:
    """Return what can be written in an encoding."""
    try:
        "".join(BLOCKS).encode(encoding)
    except (LookupError, UnicodeEncodeError):
        return ASCII
    return BLOCKS


def short(number: float) -> str:
    """Return a number in six cells at most: 9,999; 123k; 1.2M."""
    if abs(number) < _THOUSAND:
        return f"{number:,.0f}"
    if abs(number) < _MILLION:
        return f"{number / 1_000:,.0f}k"
    return f"{number / _MILLION:,.1f}M"
