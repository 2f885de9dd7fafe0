"""``celery -A celery_app lanes pause`` and ``lanes resume``: a lane starts nothing for a while."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from celery_app import controls
from celery_app.cli.durations import seconds
from celery_app.cli.output import app_of, printable
from celery_app.controls.control import duration


@click.command()
@click.argument("lane")
@click.option("--model", default="", metavar="PATTERN", help="Only jobs of models like this, as in '*opus*'.")
@click.option("--for", "for_s", callback=seconds, metavar="DURATION", help="End it by itself after a while, as in 10m.")
@click.option("--new", is_flag=True, help="The pattern is for models that nobody has called yet.")
@click.option("--json", "as_json", is_flag=True, help="Print the pauses of the lane as JSON.")
@click.pass_context
def pause(ctx: click.Context, lane: str, model: str, for_s: float | None, new: bool, as_json: bool) -> None:
    """Have LANE start no more jobs, in any worker, until it is resumed.

    What runs goes on; jobs can be submitted, and their deadlines pass.
    """
    app = app_of(ctx)
    controls.pause(app, lane, model=model, for_s=for_s, new=new)
    _tell(app, lane, as_json=as_json)


@click.command()
@click.argument("lane")
@click.option("--model", metavar="PATTERN", help="Only the pause that was for this pattern.")
@click.option("--json", "as_json", is_flag=True, help="Print the pauses that are left as JSON.")
@click.pass_context
def resume(ctx: click.Context, lane: str, model: str | None, as_json: bool) -> None:
    """Have LANE go on at once: end all of its pauses."""
    app = app_of(ctx)
    controls.resume(app, lane, model=model)
    _tell(app, lane, as_json=as_json)


def _tell(app: Any, lane: str, *, as_json: bool) -> None:
    pauses = [each for each in controls.read_controls(app) if each.kind == "pause" and each.name == lane]
    if as_json:
        click.echo(json.dumps([asdict(each) for each in pauses], indent=2))
        return
    for each in pauses:
        models = f"{lane}, models like {each.field}" if each.field else lane
        until = "until it is resumed" if each.left_s is None else f"for {duration(each.left_s)}"
        click.echo(printable(f"{models}: paused {until}, by {each.by}"))
    if not pauses:
        click.echo(f"{lane}: not paused")
