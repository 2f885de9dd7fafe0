"""The worked example of docs/operations.md is what its formulas say."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

TEXT = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
PAGE = TEXT.partition("\n## How many slots\n")[2].partition("\n## ")[0]
ROWS = [
    [cell.strip("` ") for cell in line.strip("| ").split("|")] for line in PAGE.splitlines() if line.startswith("| `")
]

#: Part of the jobs that may wait for longer than is promised.
LATE = 0.01


def waits(slots: int, busy: float) -> float:
    """Return the part of jobs that find no slot free: Erlang C, by way of Erlang B."""
    blocked = 1.0
    for k in range(1, slots + 1):
        blocked = busy * blocked / (k + busy * blocked)
    return blocked / (1 - busy / slots * (1 - blocked))


def waits_longer(slots: int, busy: float, seconds: float, call_s: float) -> float:
    """Return the part of jobs that wait for longer than these seconds."""
    return waits(slots, busy) * math.exp(-(slots - busy) * seconds / call_s)


def number(text: str) -> float:
    """Return the number that a cell begins with."""
    return float(text.split(maxsplit=1)[0])


def test_the_formula_is_erlangs() -> None:
    """Known values: of one slot half used every second job waits, of two slots a third at one busy (Erlang, 1917)."""
    assert waits(1, 0.5) == pytest.approx(0.5)
    assert waits(2, 1.0) == pytest.approx(1 / 3)


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_row_of_the_example(row: list[str]) -> None:
    """Its slots are the fewest that keep the promise; a lane that promises nothing has a tenth more than are busy."""
    _, arriving, call, busy, promised, slots, waiting = row
    call_s, count = number(call), int(slots)
    assert number(busy) == number(arriving) * call_s
    if not promised[0].isdigit():
        assert count == math.ceil(number(busy) * 1.1)
        return
    late = [waits_longer(each, number(busy), number(promised), call_s) for each in (count - 1, count)]
    assert late[1] <= LATE < late[0]
    assert f"{waits(count, number(busy)):.1%}" == waiting.replace(" ", "")


def test_the_limit_of_the_example() -> None:
    """The calls that the API allows are the least of its limits, and the lanes want no more."""
    rpm, otpm, tokens, allowed, wanted = re.findall(
        r"min\((\d+)/60, (\d+)/60/(\d+)\) = ([\d.]+) a second. The lanes above want ([\d.]+)", PAGE
    )[0]
    assert f"{min(int(rpm) / 60, int(otpm) / 60 / int(tokens)):.1f}" == allowed
    assert sum(number(row[1]) for row in ROWS) == float(wanted) < float(allowed)


def test_the_workers_of_the_example() -> None:
    """They have the slots that the table says."""
    slots = {row[0]: int(row[5]) for row in ROWS}
    assert f"`-Q critical -c {slots['critical']}`" in PAGE
    assert f"-c {slots['normal'] + slots['batch']}`" in PAGE
