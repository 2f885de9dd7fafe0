"""``celery … lanes``: what every ``celery`` command of an environment loads, and so imports nothing of ours.

It is a module of its own because whatever lay in `celery_app` would bring along an application of its own. Celery loads
it for projects, too, that have never heard of lanes.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from types import TracebackType

#: Command -> the module that holds it under the same name.
COMMANDS = {
    "demo": "celery_app.cli.demo",
    "status": "celery_app.cli.status",
    "up": "celery_app.cli.up",
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(COMMANDS[cmd_name]), cmd_name)
        return command


@click.group(cls=LazyGroup)
@click.pass_context
def lanes(ctx: click.Context) -> None:
    """Priority lanes for LLM calls: see them, run them, try them."""
    if ctx.obj is not None and ctx.find_root().params.get("app") is None:
        # Celery's own default has no lanes; whoever names no application means the one that has nothing else.
        ctx.obj.app = import_module("celery_app").app


_hook_before = sys.excepthook


def _one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say an error of the lanes in one line, whichever ``celery`` command met it; leave any other to who had it before.

    A process that has met one has imported its class.
    """
    errors = sys.modules.get("celery_app.errors")
    if errors is not None and isinstance(error, errors.LanesError):
        click.echo(f"Error: {error}", err=True)
    else:
        _hook_before(kind, error, trace)


sys.excepthook = _one_line
