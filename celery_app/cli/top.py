"""``celery -A proj lanes top``: the lanes, live."""

from __future__ import annotations

import json
import signal
import time
from typing import TYPE_CHECKING, Any

import click

from celery_app.cli.glyphs import glyphs_for
from celery_app.cli.output import app_of, command_of, console
from celery_app.cli.view import View
from celery_app.connections.redis_client import shown_url
from celery_app.errors import BrokerUnreachable
from celery_app.metrics.overview import Overview

if TYPE_CHECKING:
    from rich.console import Console

#: Seconds between two looks: workers write their figures as often. Nobody reads faster than the least.
INTERVAL, LEAST_INTERVAL = 1.0, 0.1

#: Seconds between two frames at most: they show how old the figures are.
_TICK = 1.0


@click.command()
@click.option(
    "--interval",
    default=INTERVAL,
    show_default=True,
    type=click.FloatRange(LEAST_INTERVAL),
    metavar="SECONDS",
    help="Between two looks.",
)
@click.option("--once", is_flag=True, help="Print one look and end, as without a terminal.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON per look, until Ctrl-C.")
@click.pass_context
def top(ctx: click.Context, interval: float, once: bool, as_json: bool) -> None:
    """Show the lanes live: what waits and why, budgets, tenants, workers; pause and resume a lane by a key."""
    app, command = app_of(ctx), command_of(ctx)
    overview = Overview(app, command)
    title = f"lanes of {command}, {shown_url(app)}"
    if as_json:
        _print_json(overview, interval, once=once)
        return
    screen = console()
    if once or not screen.is_terminal or screen.is_dumb_terminal:
        _print_once(View(app, overview), title, screen)
        return
    try:
        _show(View(app, overview), title, screen, interval)
    except KeyboardInterrupt:
        return


def _print_json(overview: Overview, interval: float, *, once: bool) -> None:
    if once:
        click.echo(json.dumps(overview.look()))
        return
    # A script in the background starts its commands with SIGINT ignored; one that only ends by it must not.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        while True:
            click.echo(json.dumps(_look_or_error(overview)))
            time.sleep(interval)
    except KeyboardInterrupt:
        return


def _look_or_error(overview: Overview) -> dict[str, Any]:
    """Who watches wants to see the broker come back, too."""
    try:
        return overview.look()
    except BrokerUnreachable as exc:
        return {"error": str(exc)}


def _print_once(view: View, title: str, screen: Console) -> None:
    from rich.console import Group

    from celery_app.cli.frame import frame

    view.selected = ""
    view.look_or_raise()
    screen.print(Group(*frame(view, glyphs_for(screen.encoding), title, screen.width, None)))


def _show(view: View, title: str, screen: Console, interval: float) -> None:
    """Look and draw until somebody quits."""
    from rich.console import Group

    from celery_app.cli.frame import frame
    from celery_app.cli.terminal import Terminal

    glyphs = glyphs_for(screen.encoding)
    with Terminal(screen) as terminal:
        due = time.monotonic()
        terminal.show(Group(*frame(view, glyphs, title, *terminal.size)))  # a broker that is away takes seconds
        while True:
            if time.monotonic() >= due:
                view.look()
                due = time.monotonic() + interval
            terminal.show(Group(*frame(view, glyphs, title, *terminal.size)))
            keys = terminal.wait(min(_TICK, due - time.monotonic()))
            if keys is None or "q" in keys:
                return
            if view.press(keys):
                due = time.monotonic()
