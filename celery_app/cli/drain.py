"""``celery -A celery_app lanes drain``: work lanes off, and take nothing more."""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from celery_app import controls
from celery_app.broker.lane_stats import lane_stats
from celery_app.cli.output import app_of, command_of
from celery_app.connections.redis_client import broker_errors, key_prefix, redis_client
from celery_app.controls.fields import check_lane
from celery_app.errors import LanesError
from celery_app.lanes import LANES
from celery_app.settings import settings_of

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Seconds between two looks.
_LOOK_EVERY = 0.5

#: Signals that end the wait; Ctrl-C is the first.
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@click.command()
@click.argument("lanes", nargs=-1, metavar="[LANE…]")
@click.option("--keep", is_flag=True, help="Leave them closed when they are empty, or on Ctrl-C.")
@click.option("--open", "reopen", is_flag=True, help="End a drain that was kept, and return at once.")
@click.pass_context
def drain(ctx: click.Context, lanes: tuple[str, ...], keep: bool, reopen: bool) -> None:
    """Work LANEs (by default all) off: whoever submits to them gets `LaneDraining`; return when they are empty.

    Jobs that follow one in hand, such as a chain's next step, still go in. Ctrl-C or SIGTERM opens the lanes again.
    """
    app, names = app_of(ctx), lanes or tuple(lane.name for lane in LANES)
    for name in names:
        check_lane(name)  # all before the first is closed
    if reopen:
        _open(app, names)
        return
    try:
        _end_by_signals()
        try:
            for name in names:
                controls.drain(app, name)
            _wait(app, names)
        finally:
            _leave(ctx, names, keep)
    except _Ended as end:
        with suppress(OSError):  # the terminal may be gone
            click.echo(f"Not empty yet; the lanes {'stay closed' if keep else 'are open again'}.", err=True)
        ctx.exit(128 + end.number)
    click.echo(f"{', '.join(names)}: empty")


class _Ended(BaseException):
    """A signal that ends us."""

    def __init__(self, number: int) -> None:
        self.number = number


def _end_by_signals() -> None:
    """A script in the background starts its commands with SIGINT ignored; `nohup` ignores SIGHUP, and means it."""
    for each in _ENDS:
        if each == signal.SIGINT or signal.getsignal(each) != signal.SIG_IGN:
            signal.signal(each, _end)


def _ignore_ends() -> None:
    for each in _ENDS:
        signal.signal(each, signal.SIG_IGN)


def _end(number: int, _frame: object) -> None:
    """End once: a second signal would end the opening."""
    _ignore_ends()
    raise _Ended(number)


def _leave(ctx: click.Context, names: Iterable[str], keep: bool) -> None:
    """Open the lanes again, whatever signal comes meanwhile; the broker answers, or is given up, within seconds."""
    try:
        _ignore_ends()
    finally:
        if not keep:
            _open_or_say(ctx, names)


def _open_or_say(ctx: click.Context, names: Iterable[str]) -> None:
    try:
        _open(ctx.obj.app, names)
    except LanesError:
        undo = f"{command_of(ctx)} lanes drain {' '.join(names)} --open"
        click.echo(f"What is closed stays closed. When the broker is back, open it by: {undo}", err=True)
        raise


def _open(app: Any, names: Iterable[str]) -> None:
    for name in names:
        controls.fill_again(app, name)


def _left(app: Any, names: Iterable[str]) -> int:
    lanes = [lane for lane in settings_of(app).lanes if lane.name in names]
    with broker_errors(app):
        places = lane_stats(redis_client(app), lanes, key_prefix(app)).values()
    return sum(place.depth + place.returning + place.in_flight for place in places)


def _wait(app: Any, names: Iterable[str]) -> None:
    """Show how many jobs are left, until there is none."""
    most = left = _left(app, names)
    with click.progressbar(length=most, label="jobs worked off", show_pos=True) as bar:
        while left:
            time.sleep(_LOOK_EVERY)
            now = _left(app, names)
            bar.update(max(0, left - now))
            left = now
