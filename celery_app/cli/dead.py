"""``celery -A proj lanes dead``: the jobs that nobody works on any more, seen, put back and dropped."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial, reduce
from typing import TYPE_CHECKING, Any

import click
from kombu.utils.json import dumps

from celery_app import dead_letters
from celery_app.cli.durations import seconds, shown
from celery_app.cli.output import ProgressLine, app_of, console, printable
from celery_app.dead_letters.letters import known

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from celery_app.dead_letters import DeadLetter, Progress, Purged, Replayed

#: Letters that are listed where nobody says how many.
MOST_LISTED = 100

#: What to give each command that chooses letters.
_CHOICE = (
    click.option("--lane", help="Of this lane only."),
    click.option("--task", help="Of this task only, or a pattern: 'proj.*'."),
    click.option("--reason", help="Whose reason has this in it, in upper or lower case."),
    click.option("--tenant", help="Of this tenant only; '' for jobs of nobody in particular."),
    click.option("--since", callback=seconds, help="That died within this time: 90s, 10m, 2h, 7d."),
    click.option("--before", callback=seconds, help="That died before that."),
    click.option("--limit", "most", type=click.IntRange(1), help="This many at most, the newest."),
)

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


#: What to give each command that does something with the letters that it is told.
_TOLD = (
    click.argument("ids", metavar="[ID]...", nargs=-1),
    *_CHOICE,
    click.option("--all", "everything", is_flag=True, help="All of them."),
)


def _taking(*options: Callable[..., Any]) -> Callable[..., Any]:
    return lambda command: reduce(lambda made, option: option(made), reversed(options), command)


@click.group()
def dead() -> None:
    """Show the dead letters, put them back into their lanes, or drop them."""


@dead.command("list")
@_taking(*_CHOICE, _as_json)
@click.pass_context
def list_letters(ctx: click.Context, /, as_json: bool, most: int | None, **choice: Any) -> None:
    """List dead letters, the newest first, without their arguments."""
    limit = most or MOST_LISTED
    with _progress("looking") as progress:
        found = dead_letters.find(app_of(ctx), **choice, most=limit + 1, progress=progress)
    letters, more = found[:limit], len(found) > limit
    if as_json:
        click.echo(json.dumps([_fields(letter) for letter in letters], indent=2))
    else:
        _print_table(letters)
    if more:
        click.echo(f"there are more than these {limit:,}: --limit N shows more", err=True)


@dead.command()
@click.argument("letter_id", metavar="ID")
@click.option("--payload", is_flag=True, help="Print its arguments instead: they hold the prompt.")
@_as_json
@click.pass_context
def show(ctx: click.Context, /, letter_id: str, payload: bool, as_json: bool) -> None:
    """Show all that is known of one, but for its arguments."""
    app = app_of(ctx)
    if payload:
        click.echo(dumps(dead_letters.payload(letter_id, app), indent=2))
        return
    letter = dead_letters.get(letter_id, app)
    if as_json:
        click.echo(json.dumps({**_fields(letter), "error": letter.error, "traceback": letter.traceback}, indent=2))
        return
    for name, value in _fields(letter).items():
        click.echo(f"{name:<13}{printable(str(value))}")
    click.echo(f"{'error':<13}{printable(letter.error) or '-'}")
    for line in letter.traceback.splitlines():
        click.echo(printable(line))


@dead.command()
@_taking(*_TOLD, _as_json)
@click.pass_context
def replay(ctx: click.Context, /, ids: tuple[str, ...], everything: bool, as_json: bool, **choice: Any) -> None:
    """Put dead letters back at their places, with fresh attempts and the same ids."""
    app = app_of(ctx)
    letters = _chosen(app, ids, choice, everything=everything)
    with _progress("replaying") as progress:
        done = dead_letters.replay(letters, app, progress)
    named, full = (
        done.name_taken,
        ", ".join(f"{count:,} in {printable(lane)}" for lane, count in done.lane_full.items()),
    )
    words = [
        named and f"{named:,} stay: another job has their unique name",
        full and f"{full} stay: the lane is full; try again when there is room",
    ]
    _report(done, f"{done.replayed:,} replayed", words, as_json=as_json)
    ctx.exit(1 if done.stay else 0)


@dead.command()
@_taking(*_TOLD, click.option("--yes", is_flag=True, help="Do not ask."), _as_json)
@click.pass_context
def purge(
    ctx: click.Context, /, ids: tuple[str, ...], everything: bool, yes: bool, as_json: bool, **choice: Any
) -> None:
    """Drop dead letters for good."""
    app = app_of(ctx)
    letters = _chosen(app, ids, choice, everything=everything)
    if letters and not yes:
        if not sys.stdin.isatty():
            raise click.UsageError(f"this drops {len(letters):,} dead letters for good: say --yes")
        click.confirm(f"Drop {len(letters):,} dead letters for good?", abort=True, err=True)
    with _progress("purging") as progress:
        done = dead_letters.purge(letters, app, progress)
    _report(done, f"{done.purged:,} purged", [], as_json=as_json)
    ctx.exit(1 if done.untold else 0)


def _chosen(app: Any, ids: tuple[str, ...], choice: dict[str, Any], *, everything: bool) -> list[DeadLetter]:
    """Return the letters that a command is for; nobody means all of them by saying nothing."""
    said = any(value is not None for name, value in choice.items() if name != "most")
    if [bool(ids), said, everything].count(True) != 1:
        raise click.UsageError("say which: their IDs, or options that choose, or --all")
    if ids:
        return [known(app, each) for each in dict.fromkeys(ids)]
    with _progress("looking") as progress:
        return dead_letters.find(app, **choice, progress=progress)


@contextmanager
def _progress(doing: str) -> Iterator[Progress]:
    line = ProgressLine(doing)
    try:
        yield line
    finally:
        line.end()


def _report(done: Replayed | Purged, first: str, words: list[Any], *, as_json: bool) -> None:
    lines = [
        first,
        done.gone and f"{done.gone:,} were dead letters no more",
        done.untold and f"{done.untold:,} stay: no worker has told yet those who wait; try again in a second",
        *words,
    ]
    click.echo(json.dumps(asdict(done)) if as_json else "\n".join(filter(None, lines)))


def _fields(letter: DeadLetter) -> dict[str, Any]:
    """Return what may be shown of any letter."""
    times = {name: getattr(letter, name).isoformat(timespec="milliseconds") for name in ("submitted_at", "died_at")}
    fields = {**asdict(letter), **times, "age_s": round(letter.age_s, 3)}
    return {name: value for name, value in fields.items() if name not in {"error", "traceback"}}


def _print_table(letters: list[DeadLetter]) -> None:
    from rich.table import Table

    if not letters:
        click.echo("no dead letters")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    add = partial(table.add_column, no_wrap=True)
    for heading in ("id", "lane", "task", "tenant"):
        add(heading, overflow="fold")
    add("age", justify="right")
    add("tries", justify="right")
    table.add_column("reason")
    for each in letters:
        names = [printable(text) for text in (each.id, each.lane, each.task, each.tenant)]
        table.add_row(*names, shown(each.age_s), f"{each.tries}", printable(each.reason))
    console().print(table)
