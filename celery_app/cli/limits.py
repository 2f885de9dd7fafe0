"""``celery -A celery_app lanes limits``: see what limits are in force, and set others while all runs."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from celery_app import controls
from celery_app.cli.output import app_of, console, printable
from celery_app.controls.control import duration
from celery_app.metrics.in_force import InForce, in_force

if TYPE_CHECKING:
    from collections.abc import Callable

#: How "no limit" is written.
NONE_WORDS = ("none", "off")

_OF = (
    click.option("--lane", help="Fields of a lane: floor, share, capacity, usd_per_day."),
    click.option("--tenant", help="Of a tenant: weight, usd_per_day."),
    click.option("--batch", help="Of a batch, by its id: usd."),
    click.option("--json", "as_json", is_flag=True, help="Print what is in force as JSON."),
)


def _with_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_OF):
        command = option(command)
    return command


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print what is in force as JSON.")
@click.pass_context
def limits(ctx: click.Context, as_json: bool) -> None:
    """Show the limits in force, and where each comes from; set others while all runs.

    \b
    lanes limits set '*haiku*' rpm=2000 itpm=none
    lanes limits set --lane batch floor=0.6 share=0.1 capacity=500
    lanes limits set --tenant acme weight=3
    lanes limits set usd_per_day=20
    lanes limits reset '*haiku*' rpm
    lanes limits reset
    """  # noqa: D301 - click leaves the lines behind this mark as they are
    if ctx.invoked_subcommand is None:
        _show(app_of(ctx), as_json=as_json)


@limits.command("set")
@click.argument("words", nargs=-1, required=True, metavar="[PATTERN] FIELD=VALUE…")
@click.option("--new", is_flag=True, help="The pattern is for models that nobody has called yet.")
@_with_options
@click.pass_context
def set_(  # one argument for each option
    ctx: click.Context, /, words: tuple[str, ...], new: bool, as_json: bool, **whose: str | None
) -> None:
    """Set limits of the models that are like PATTERN, or with --lane, --tenant or --batch, those of one.

    usd_per_day alone is what all calls may cost in a day.

    It is for all workers and publishers from the next job on, and stronger than the environment until it is reset.
    """
    app = app_of(ctx)
    model, pairs = _split(words)
    values = dict(_pair(word) for word in pairs)
    controls.set_limits(app, values, model=model, new=new, **whose)
    _show(app, as_json=as_json)


@limits.command("reset")
@click.argument("words", nargs=-1, metavar="[PATTERN] [FIELD…]")
@_with_options
@click.pass_context
def reset(ctx: click.Context, /, words: tuple[str, ...], as_json: bool, **whose: str | None) -> None:
    """Take away what was set: of one thing all fields or some, or, if none is named, everything.

    Then the environment and the configuration count again. Pauses stay; `lanes resume` ends them.
    """
    app = app_of(ctx)
    is_model = not any(whose.values()) and words != controls.FIELDS["all"]
    model, fields = _first(words) if is_model else (None, words)
    controls.reset_limits(app, fields, model=model, **whose)
    _show(app, as_json=as_json)


def _split(words: tuple[str, ...]) -> tuple[str | None, tuple[str, ...]]:
    """Return the pattern, if there is one, and the pairs."""
    return (None, words) if "=" in words[0] else _first(words)


def _first(words: tuple[str, ...]) -> tuple[str | None, tuple[str, ...]]:
    return (words[0], words[1:]) if words else (None, ())


def _pair(word: str) -> tuple[str, Any]:
    field, equals, value = word.partition("=")
    if not equals:
        raise click.UsageError(f"{word!r} is no FIELD=VALUE, as in rpm=2000")
    return field, None if value.lower() in NONE_WORDS else value


def _show(app: Any, *, as_json: bool) -> None:
    rows = in_force(app)
    others = [each for each in controls.read_controls(app) if each.kind not in controls.FIELDS]
    if as_json:
        told = {"limits": [_as_dict(row) for row in rows], "others": [asdict(each) for each in others]}
        click.echo(json.dumps(told, indent=2))
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("of", "field", "value", "from"):
        table.add_column(heading, no_wrap=True)
    for row in rows:
        table.add_row(printable(f"{row.kind} {row.name}".strip()), row.field, _value(row.value), printable(row.origin))
    for each in others:
        what = "paused" if each.kind == "pause" else "drained"
        left = "" if each.left_s is None else f" for {duration(each.left_s)}"
        cells = f"lane {each.name}", what, f"{each.field or 'all'}{left}", f"{each.by}, {each.since} ago"
        table.add_row(*map(printable, cells))
    console().print(table)


def _value(value: float | None) -> str:
    return "no limit" if value is None else f"{value:,.10g}"


def _as_dict(row: InForce) -> dict[str, Any]:
    control = row.control
    told: dict[str, Any] = {"kind": row.kind, "name": row.name, "field": row.field, "value": row.value}
    if control is None:
        return {**told, "from": row.origin, "by": None, "age_s": None}
    return {**told, "from": "run time", "by": control.by, "age_s": round(control.age_s, 1)}
