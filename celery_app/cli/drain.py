"""``celery -A celery_app lanes drain``: work lanes off, and take nothing more."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, Any

import click

from celery_app import controls
from celery_app.broker.lane_stats import lane_stats
from celery_app.cli.output import app_of
from celery_app.connections.redis_client import broker_errors, key_prefix, redis_client
from celery_app.lanes import LANES
from celery_app.settings import settings_of

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Seconds between two looks.
_LOOK_EVERY = 0.5


@click.command()
@click.argument("lanes", nargs=-1, metavar="[LANE…]")
@click.option("--keep", is_flag=True, help="Leave them closed when they are empty, or on Ctrl-C.")
@click.option("--open", "reopen", is_flag=True, help="End a drain that was kept, and return at once.")
@click.pass_context
def drain(ctx: click.Context, lanes: tuple[str, ...], keep: bool, reopen: bool) -> None:
    """Work LANEs (by default all) off: whoever submits to them gets `LaneDraining`; return when they are empty.

    Jobs that follow one in hand, such as the next step of a chain, still go in. Ctrl-C opens the lanes again.
    """
    app, names = app_of(ctx), lanes or tuple(lane.name for lane in LANES)
    if reopen:
        _open(app, names)
        return
    # A script in the background starts its commands with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in names:
        controls.drain(app, name)
    try:
        _wait(app, names)
    except KeyboardInterrupt:
        click.echo(
            "Not empty yet; the lanes stay closed." if keep else "Not empty yet; the lanes are open again.", err=True
        )
        ctx.exit(130)
    finally:
        if not keep:
            _open(app, names)
    click.echo(f"{', '.join(names)}: empty")


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
