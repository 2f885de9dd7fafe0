from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from celery_app.cli.glyphs import ASCII, BLOCKS, Glyphs, glyphs_for, short

EACH = pytest.mark.parametrize("glyphs", [ASCII, BLOCKS])


@EACH
@given(st.lists(st.none() | st.floats(0, 1e9), max_size=50), st.integers(1, 30))
def test_a_sparkline_has_its_cells_and_the_newest_is_on_the_right(
    glyphs: Glyphs, values: list[float | None], cells: int
) -> None:
    """The highest of what is shown has the highest step, nothing the lowest, what is not known none."""
    line, shown = glyphs.spark(values, cells), values[-cells:]
    assert len(line) == cells
    for value, step in zip(reversed(shown), reversed(line), strict=False):
        most = max(each for each in shown if each is not None) if value is not None else 0
        assert (step == " ") == (value is None)
        assert value is None or (step == glyphs.steps[0]) == (value == 0)
        assert not value or value < most or step == glyphs.steps[-1]


@EACH
@given(st.floats(-3, 3), st.integers(1, 100), st.floats(0, 1))
def test_a_bar_has_its_cells_and_its_mark(glyphs: Glyphs, part: float, cells: int, floor: float) -> None:
    """However far the level is below nothing or above all that there can be."""
    bar = glyphs.bar(part, {"b": floor}, cells)
    assert len(bar) == cells
    assert bar.index("b") == min(cells - 1, int(floor * cells))
    assert set(bar) <= {glyphs.full, glyphs.empty, "b"}


@given(st.floats(0, 999_900_000))
def test_a_number_takes_six_cells(number: float) -> None:
    """At most; a million jobs are not more of them than a thousand."""
    assert len(short(number)) <= 6


def test_a_terminal_gets_what_it_can_write() -> None:
    """Blocks where it writes UTF-8, ASCII elsewhere, and where nobody knows the name of its encoding."""
    assert [glyphs_for(name) for name in ("utf-8", "UTF8", "ascii", "latin-1", "no-such")] == [BLOCKS] * 2 + [ASCII] * 3
