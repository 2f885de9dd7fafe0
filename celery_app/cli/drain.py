"""``celery -A celery_app lanes drain``: work lanes off, and take nothing more."""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

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
    with _Ends() as ends:
        try:
            for name in names:
                controls.drain(app, name)
            is_empty = _wait(app, names, ends)
        finally:
            if not keep:
                _open_or_say(ctx, names)
    if not is_empty:
        with suppress(OSError):  # the terminal may be gone
            click.echo(f"Not empty yet; the lanes {'stay closed' if keep else 'are open again'}.", err=True)
        ctx.exit(128 + ends.number)
    click.echo(f"{', '.join(names)}: empty")


class _Ends:
    """Takes note of the signal that ends us; an exception of a handler's can be lost wherever it comes."""

    number = 0

    def __enter__(self) -> Self:
        # A script in the background starts its commands with SIGINT ignored; `nohup` ignores SIGHUP, and means it.
        heard = [each for each in _ENDS if each == signal.SIGINT or signal.getsignal(each) != signal.SIG_IGN]
        self._before = {each: signal.signal(each, self._note) for each in heard}
        return self

    def __exit__(self, *_: object) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def _note(self, number: int, _frame: object) -> None:
        self.number = self.number or number


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


def _wait(app: Any, names: Iterable[str], ends: _Ends) -> bool:
    """Show how many jobs are left, until there is none, or a signal ends us; return whether there is none."""
    most = left = _left(app, names)
    with click.progressbar(length=most, label="jobs worked off", show_pos=True) as bar:
        while left and not ends.number:
            time.sleep(_LOOK_EVERY)
            now = _left(app, names)
            bar.update(max(0, left - now))
            left = now
    return not left
