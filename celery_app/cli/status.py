"""``celery -A celery_app lanes status``: one line per lane."""

from __future__ import annotations

import json
import signal
import time
from typing import TYPE_CHECKING, Any

import click

from celery_app.cli.dollars import dollars
from celery_app.cli.durations import shown, shown_ms
from celery_app.cli.output import app_of, console, printable, waits
from celery_app.errors import BrokerUnreachable
from celery_app.metrics.stats import get_queue_stats

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import RenderableType

#: Seconds between two looks: workers write their metrics as often.
REFRESH_INTERVAL = 1.0

#: Heading -> what stands below it, of one lane's stats.
COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "queued": lambda lane: f"{lane['depth']:,}",
    "oldest": lambda lane: shown(lane["oldest_s"]),
    "in flight": lambda lane: f"{lane['in_flight']:,}",
    "returning": lambda lane: f"{lane['returning']:,}",
    "dead": lambda lane: f"{lane['dead']:,}",
    "done": lambda lane: f"{lane['processed']:,}",
    "failed": lambda lane: f"{lane['failed']:,}",
    "per min": lambda lane: f"{lane['throughput_per_min']:,.0f}",
    "wait p50": lambda lane: shown_ms(lane["wait_ms"]["p50"]),
    "p95": lambda lane: shown_ms(lane["wait_ms"]["p95"]),
    "p99": lambda lane: shown_ms(lane["wait_ms"]["p99"]),
}

#: The same where there are prices.
MONEY: dict[str, Callable[[dict[str, Any]], str]] = {
    "today": lambda lane: dollars(lane["usd_today"]),
    "saved": lambda lane: dollars(lane["usd_saved_today"]),
}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON, as get_queue_stats() returns them.")
@click.option("--watch", is_flag=True, help="Look again every second, until Ctrl-C.")
@click.pass_context
def status(ctx: click.Context, as_json: bool, watch: bool) -> None:
    """Show the lanes: what is queued, what is done, and how long it waited."""
    app = app_of(ctx)
    stats = get_queue_stats(app)
    if not watch:
        click.echo(json.dumps(stats, indent=2)) if as_json else console().print(_table(stats))
        return
    try:
        # A script in the background starts its commands with SIGINT ignored; one that only ends by it must not.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _watch_lines(app) if as_json else _watch_table(app)
    except KeyboardInterrupt:
        return


def _watch_lines(app: Any) -> None:
    """Print one line of JSON per look."""
    while True:
        click.echo(json.dumps(get_queue_stats(app)))
        time.sleep(REFRESH_INTERVAL)


def _watch_table(app: Any) -> None:
    """Draw over the last look; what ends us shows the terminal's cursor again."""
    from rich.live import Live

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with Live(_look(app), console=console(), auto_refresh=False) as live:
        while True:
            time.sleep(REFRESH_INTERVAL)
            live.update(_look(app), refresh=True)


def _look(app: Any) -> RenderableType:
    """Who watches wants to see the broker come back, too."""
    try:
        return _table(get_queue_stats(app))
    except BrokerUnreachable as exc:
        return f"Error: {exc}"


def _table(stats: dict[str, Any]) -> RenderableType:
    from rich.console import Group
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("lane", no_wrap=True)
    columns = COLUMNS | (MONEY if "spent" in stats else {})
    for heading in columns:
        table.add_column(heading, justify="right")
    for name, lane in stats["lanes"].items():
        table.add_row(name, *(show(lane) for show in columns.values()))
    told = [(name, lane["waiting_for"]) for name, lane in stats["lanes"].items() if lane["waiting_for"]]
    waiting = [printable(waits(name, reason)) for name, reason in told]
    return Group(table, *waiting)
