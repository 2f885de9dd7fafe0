"""The lanes on the screen of `lanes top`: a row for each, and what it waits for."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.text import Text

from celery_app.cli.durations import shown, shown_ms
from celery_app.cli.glyphs import short
from celery_app.cli.output import printable, waits
from celery_app.controls.control import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from celery_app.cli.glyphs import Glyphs
    from celery_app.cli.view import View


class Column(NamedTuple):
    """A figure of a lane.

    Attributes:
        heading: above it.
        cells: that it takes.
        show: of the lane's figures.
        rank: the columns with the highest go first where the screen is narrow; 0 stays.
    """

    heading: str
    cells: int
    show: Callable[[dict[str, Any]], str]
    rank: int = 0


COLUMNS = (
    Column("queued", 6, lambda lane: short(lane["depth"])),
    Column("running", 7, lambda lane: short(lane["in_flight"])),
    Column("oldest", 8, lambda lane: shown(lane["oldest_s"])),
    Column("p50", 8, lambda lane: shown_ms(lane["wait_ms"]["p50"]), 2),
    Column("p99", 8, lambda lane: shown_ms(lane["wait_ms"]["p99"])),
    Column("per min", 7, lambda lane: short(lane["throughput_per_min"]), 1),
    Column("workers", 7, lambda lane: short(lane["workers"]), 3),
    Column("slots", 6, lambda lane: short(lane["slots"]), 4),
    Column("more wanted", 11, lambda lane: short(lane["slots_wanted"]), 5),
    Column("dead", 6, lambda lane: short(lane["dead"]), 6),
)

#: Cells of the lane's name, with the mark of the selected one.
_NAME = 10

#: Cells of a sparkline: below it is none, above it says no more.
_LEAST_SPARK, _MOST_SPARK = 6, 60

#: Kind of reason -> its colour; whoever has none reads the words.
_STYLES = {"account": "red", "shut": "red", "no_worker": "red", "paused": "yellow", "cap": "yellow", "budget": "yellow"}


def lane_rows(view: View, glyphs: Glyphs, width: int) -> list[Text]:
    """Return the headings, and a row for each lane."""
    least = 2 * (_LEAST_SPARK + 1) if view.has_history else 0
    columns = _fitting(width - _NAME - least)
    left = width - _NAME - sum(column.cells + 1 for column in columns)
    spark = min(_MOST_SPARK, left // 2 - 1) if view.has_history else 0
    headings = "".join(f" {column.heading:>{column.cells}}" for column in columns)
    sparks = f" {'depth':<{spark}} {'wait':<{spark}}" if spark > 0 else ""
    rows = [Text(f"{'  lane':<{_NAME}}{headings}{sparks}", "bold")]
    for name, lane in view.lanes.items():
        chosen = name == view.selected
        row = Text(f"{'> ' if chosen else '  '}{name:<{_NAME - 2}}", "reverse" if chosen else _style(lane))
        row.append("".join(f" {column.show(lane):>{column.cells}}" for column in columns))
        if spark > 0:
            depths, moments = view.depths(name), view.waits(name)
            row.append(f" {glyphs.spark(depths, spark)} {glyphs.spark(moments, spark)}", "" if chosen else "cyan")
        rows.append(row)
    return rows


def reason_rows(view: View, width: int, most: int) -> list[Text]:
    """Return what the lanes wait for: a line for each, and of the selected one all of it, with what to do."""
    rows = []
    for name, lane in view.lanes.items():
        lines = [printable(line) for line in _reasons(name, lane)]
        if name == view.selected:
            for line, advice in zip(lines, _advice(lane, len(lines)), strict=True):
                rows += [Text(part, _style(lane)) for part in textwrap.wrap(line, width)]
                rows += [
                    Text(part) for part in textwrap.wrap(advice, width, initial_indent="  ", subsequent_indent="  ")
                ]
        elif lines:
            rows.append(Text("; ".join(lines), _style(lane)))
    if len(rows) > most:
        rows = [*rows[: max(0, most - 1)], Text("  … `lanes why` has the rest")][:most]
    return rows


def _fitting(cells: int) -> Sequence[Column]:
    columns = sorted(COLUMNS, key=lambda column: column.rank)
    while columns[-1].rank and sum(column.cells + 1 for column in columns) > cells:
        columns.pop()
    return [column for column in COLUMNS if column in columns]


def _reasons(name: str, lane: dict[str, Any]) -> Iterator[str]:
    for each in lane["draining"]:
        yield f"{name} takes no more jobs, since {each['by']} drains it for {duration(each['age_s'])}"
    for each in lane["waiting_for"]:
        yield waits(name, each["words"])


def _advice(lane: dict[str, Any], number: int) -> list[str]:
    advice = [printable(each["advice"]) for each in lane["waiting_for"]]
    return ["`lanes drain --open` ends it"] * (number - len(advice)) + advice


def _style(lane: dict[str, Any]) -> str:
    return next((_STYLES[each["kind"]] for each in lane["waiting_for"] if each["kind"] in _STYLES), "")
