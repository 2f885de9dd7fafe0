"""Report: the findings as a person reads them."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from celery_app.lanes import CRITICAL

NOTHING = "-"
EXPLANATION = (
    "p50 to max: ms from submission until the call left for the API; * beside so many in batch, until it arrived"
)


def report(found: dict[str, Any]) -> Group:
    """Return a table with a row for each lane, and below it what the figures mean."""
    table = Table(box=SIMPLE_HEAD, title=_title(found), title_justify="left", title_style="bold", pad_edge=False)
    table.add_column("lane")
    for name in ("jobs", "p50", "p95", "p99", "max", "jobs/s", "429s"):
        table.add_column(name, justify="right")
    for lane, figures in found["lanes"].items():
        rest = (_number(figures["throughput_per_s"], 1), str(figures["limited"]))
        table.add_row(lane, str(figures["jobs"]), *_waits(figures["wait_ms"]), *rest)
        if lane == CRITICAL.name and found["critical_beside_batch"]:
            beside = found["critical_beside_batch"]
            label = f"  beside {beside['queued_at_least']}+*"
            table.add_row(label, str(beside["jobs"]), *_waits(beside["wait_ms"]), "", "", style="dim")
    return Group(table, Text(EXPLANATION, style="dim"), Text(f"\n{found['sentence']}", style="bold"), *_errors(found))


def print_report(found: dict[str, Any]) -> None:
    """Print it on stdout."""
    Console(highlight=False).print(report(found))


def _title(found: dict[str, Any]) -> str:
    lanes = found["lanes"]
    counts = (
        f"{lanes['batch']['jobs']} documents, {lanes['normal']['jobs']} summaries, {lanes['critical']['jobs']} chat"
    )
    return f"{counts} questions: all answered after {found['seconds']:.0f} s"


def _errors(found: dict[str, Any]) -> list[Text]:
    return [Text(f"{count} failed: {error}", style="red") for error, count in found["errors"].items()]


def _waits(wait_ms: dict[str, float | None]) -> list[str]:
    return [_number(wait_ms[name], 0) for name in ("p50", "p95", "p99", "max")]


def _number(value: float | None, digits: int) -> str:
    return NOTHING if value is None else f"{value:,.{digits}f}"
