"""``celery -A proj lanes spend``: what calls have cost, by lane, model and tenant."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from celery_app.cli.dollars import dollars
from celery_app.cli.output import app_of, console, printable
from celery_app.metrics.spent import KINDS, MOST_DAYS, MOST_HOURS, Spent, spent_by_day, spent_by_hour
from celery_app.settings import settings_of

if TYPE_CHECKING:
    from celery_app.metrics.spent import Amounts

#: Lines of a table for models, and for tenants: the dearest. ``--json`` has all.
MOST_LINES = 20


@click.command()
@click.option("--days", default=1, show_default=True, type=click.IntRange(1, MOST_DAYS), help="Today and before.")
@click.option("--hours", type=click.IntRange(1, MOST_HOURS), help="The last hours instead, each one of UTC.")
@click.option("--by", type=click.Choice(KINDS), help="Only by lane, model or tenant.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def spend(ctx: click.Context, days: int, hours: int | None, by: str | None, as_json: bool) -> None:
    """Show what was spent: by lane, model and tenant, and what message batches have saved."""
    app = app_of(ctx)
    settings = settings_of(app)
    found = spent_by_day(app, days) if hours is None else spent_by_hour(app, hours)
    kinds = KINDS if by is None else (by,)
    if as_json:
        zone = settings.time_zone if hours is None else "UTC"
        told = {
            "prices": bool(settings.prices),
            "time_zone": zone,
            "windows": [_as_json(each, kinds) for each in found],
        }
        click.echo(json.dumps(told, indent=2))
        return
    console().print(_table([each for each in found if each.total.calls] or found[:1], kinds))
    for line in _notes(found, prices=bool(settings.prices)):
        click.echo(line)


def _as_json(spent: Spent, kinds: tuple[str, ...]) -> dict[str, Any]:
    by = {kind: {name: each._asdict() for name, each in spent.by[kind].items()} for kind in kinds}
    return {"window": spent.window, **spent.total._asdict(), "by": by, "unpriced": dict(spent.unpriced)}


def _table(found: list[Spent], kinds: tuple[str, ...]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("when", "by", "who"):
        table.add_column(heading, no_wrap=True)
    for heading in ("calls", "spent", "saved"):
        table.add_column(heading, justify="right")
    for spent in found:
        table.add_row(spent.window, "all", "", *_cells(spent.total))
        for kind in kinds:
            for name, amounts in list(spent.by[kind].items())[:MOST_LINES]:
                table.add_row("", kind, printable(name) or "-", *_cells(amounts))
    return table


def _cells(amounts: Amounts) -> tuple[str, str, str]:
    return f"{amounts.calls:,}", dollars(amounts.usd), dollars(amounts.saved) if amounts.saved else "-"


def _notes(found: list[Spent], *, prices: bool) -> list[str]:
    if not prices:
        return ["EZAI_PRICES is not set here: where the workers have none, either, nothing is counted"]
    models = sorted({printable(model) for spent in found for model in spent.unpriced})
    return [f"no price in EZAI_PRICES fits {', '.join(models[:MOST_LINES])}"] if models else []
