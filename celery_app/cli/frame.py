"""The screen of `lanes top`: lines from what it knows, as many and as long as the terminal takes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from rich.cells import set_cell_size
from rich.text import Text

from celery_app.cli.dollars import spent_and_saved
from celery_app.cli.durations import shown
from celery_app.cli.glyphs import short
from celery_app.cli.lane_rows import lane_rows, reason_rows
from celery_app.cli.output import printable
from celery_app.controls.control import duration
from celery_app.lanes import LANES

if TYPE_CHECKING:
    from celery_app.cli.glyphs import Glyphs
    from celery_app.cli.view import View

#: Dimension -> its name on the screen.
_DIMENSIONS = {"requests": "requests", "input_tokens": "input", "output_tokens": "output", "calls": "calls"}

#: Lines that reasons may take of what is left beside the lanes; tenants, of what is left then.
_REASONS_PART, _TENANTS_PART = 0.5, 0.34

#: Cells of a dimension, of the numbers behind a bar; and of a bar at least.
_DIMENSION, _NUMBERS, _LEAST_BAR = 8, 25, 8

#: Cells that a tenant's lane and jobs take.
_LANE_AND_JOBS = 18

#: Cells of a family's or a tenant's name: at least, and of the whole line.
_LEAST_NAME, _NAMES_PART = 12, 0.25

#: Lines of a frame that may be as long as it likes.
_ENDLESS = 1_000


def frame(view: View, glyphs: Glyphs, title: str, width: int, height: int | None) -> list[Text]:
    """Return the lines.

    Args:
        view: what is known.
        glyphs: what the terminal can show.
        title: what is looked at.
        width: cells of a line.
        height: lines; None: as many as there are, for a file.
    """
    head = [_title(view, title), *_below_title(view)]
    foot = [] if height is None else [Text(printable(view.message), "bold"), _keys(glyphs, width)]
    body = _body(view, glyphs, width, (height or _ENDLESS) - len(head) - len(foot)) if view.seen else []
    gap = [] if height is None else [Text("")] * (height - len(head) - len(body) - len(foot))
    lines = [*head, *body, *gap, *foot]
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return lines if height is None else [*lines[: max(0, height - 1)], lines[-1]][:height]


def _title(view: View, title: str) -> Text:
    if not view.away:
        at = time.strftime("%H:%M:%S  ", time.localtime(view.seen["at"])) if view.seen else ""
        return Text(f"{at}{title}")
    known = f", the figures are {duration(view.age_s)} old" if view.seen else ""
    return Text(f"BROKER AWAY for {duration(view.away_s)}{known}", "bold red reverse")


def _below_title(view: View) -> list[Text]:
    lines = [Text(printable(view.away), "red")] if view.away else []
    if view.seen:
        busy = sum(lane["in_flight"] for lane in view.lanes.values())
        queued = sum(lane["depth"] for lane in view.lanes.values())
        workers = f"{view.seen['workers']:,} worker{'s'[: view.seen['workers'] != 1]}"
        spent = view.seen.get("spent")
        money = f", {spent_and_saved(spent['usd'], spent['usd_saved'])}" if spent else ""
        lines.append(Text(f"{queued:,} queued, {workers}, {busy:,} of {view.seen['slots']:,} slots busy{money}"))
    return lines


def _keys(glyphs: Glyphs, width: int) -> Text:
    long = f"1 2 3 or {glyphs.up_down}: lane   p: pause it   r: resume it   q: quit"
    return Text(long if len(long) <= width else "1-3 lane  p pause  r resume  q quit", "dim")


def _body(view: View, glyphs: Glyphs, width: int, height: int) -> list[Text]:
    """Share the lines out: the lanes have theirs, then what they wait for, then budgets and tenants."""
    lanes = lane_rows(view, glyphs, width)
    left = height - len(lanes)
    reasons = reason_rows(view, width, int(left * _REASONS_PART))
    left -= len(reasons)
    budgets, tenants = _budget_rows(view, glyphs, width), _tenant_rows(view, glyphs, width)
    for_tenants = min(len(tenants), max(int(left * _TENANTS_PART), left - len(budgets)))
    parts = [_cut(budgets, left - for_tenants), _cut(tenants, for_tenants)]
    spare = left - sum(map(len, parts))
    lines = [*lanes, *reasons]
    for part in filter(None, parts):
        lines += [Text("")] * (spare > 0)
        spare -= 1
        lines += part
    return lines


def _cut(rows: list[Text], most: int) -> list[Text]:
    """A heading alone says nothing."""
    if len(rows) <= most:
        return rows
    return [*rows[: most - 1], Text(f"  … {len(rows) - most + 1} more")] if most > 2 else rows[:most] * (most > 1)  # noqa: PLR2004 - heading, row, "more"


def _budget_rows(view: View, glyphs: Glyphs, width: int) -> list[Text]:
    """Return a row for each dimension of each budget, each floor marked with its lane's letter."""
    budgets = view.seen["budgets"] if view.seen else []
    if not budgets:
        return []
    names = max(_LEAST_NAME, int(width * _NAMES_PART))
    cells = max(_LEAST_BAR, width - names - _DIMENSION - _NUMBERS - 3)
    floors = {lane for each in budgets for lane, floor in each["floors"].items() if floor}
    words = ", ".join(f"{name[0]}: {name}" for name in view.lanes if name in floors)
    heading = f"budgets, and what a lane leaves: {words}" if words else "budgets"
    return [Text(heading, "bold"), *(_budget_row(each, glyphs, names, cells) for each in budgets)]


def _budget_row(budget: dict[str, Any], glyphs: Glyphs, names: int, cells: int) -> Text:
    capacity = budget["capacity"] or 1
    marks = {lane[0]: floor / capacity for lane, floor in budget["floors"].items() if floor}
    lanes = "" if len(budget["lanes"]) == len(LANES) else f" ({', '.join(budget['lanes'])})"
    name = f"{budget['model'] or budget['family']}{lanes}"
    row = Text(f"{set_cell_size(printable(name), names)} {_DIMENSIONS[budget['dimension']]:<{_DIMENSION}} ")
    bar = Text(glyphs.bar(budget["level"] / capacity, marks, cells), "red" if budget["shut"] else "green")
    bar.highlight_regex(r"[a-z]", "bold default")
    row.append_text(bar)
    row.append(f" {_numbers(budget)}")
    return row


def _numbers(budget: dict[str, Any]) -> str:
    if budget["shut"] == "account":
        return "account refused"
    if budget["shut"]:
        return f"shut for {shown(budget['shut_s'])}"
    limit = "" if budget["limit"] is None else f", {short(budget['limit'])}/min"
    return f"{short(max(0, budget['level']))} of {short(budget['capacity'])}{limit}"


def _tenant_rows(view: View, glyphs: Glyphs, width: int) -> list[Text]:
    """Return a row for each of those with the most jobs; none where nobody names a tenant."""
    tenants = view.seen["tenants"] if view.seen else []
    if not any(each["tenant"] for each in tenants):
        return []
    names, most = max(_LEAST_NAME, int(width * _NAMES_PART)), tenants[0]["jobs"]
    cells = max(_LEAST_BAR, width - names - _LANE_AND_JOBS)
    left_out = view.seen["tenants_left_out"] if view.seen else 0
    more = f"  (of {left_out:,} others some are looked at each time)" if left_out else ""
    rows = [Text(f"tenants with the most jobs queued{more}", "bold")]
    for each in tenants:
        name = set_cell_size(printable(each["tenant"] or "(none)"), names)
        bar = glyphs.bar(each["jobs"] / most, {}, cells).rstrip(glyphs.empty)
        rows.append(Text(f"{name} {each['lane']:<8} {short(each['jobs']):>6} {bar}"))
    return rows
