"""The command group; Celery loads it for every ``celery`` command, so it has to be cheap."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from celery_app.errors import LanesError

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
def lanes() -> None:
    """Priority lanes for LLM calls: see them, run them, try them."""


def _one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> Any:
    """Say a foreseen error in one line, whichever ``celery`` command met it."""
    if isinstance(error, KeyboardInterrupt):
        click.echo("Stopped.", err=True)
    elif isinstance(error, LanesError):
        click.echo(f"Error: {error}", err=True)
    else:
        sys.__excepthook__(kind, error, trace)


# Only ``celery`` itself imports this module, so the hook speaks for commands alone.
sys.excepthook = _one_line
