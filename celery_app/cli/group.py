"""The command group; Celery loads it for every ``celery`` command, so it has to be cheap."""

from __future__ import annotations

import sys
from importlib import import_module
from types import TracebackType
from typing import Any

import click
from celery.exceptions import ImproperlyConfigured

from celery_app.errors import LanesError

#: Command -> the module that holds it under the same name.
COMMANDS = {
    "demo": "celery_app.cli.demo",
    "status": "celery_app.cli.status",
    "up": "celery_app.cli.up",
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names of all commands."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
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
    while not isinstance(error, LanesError) and isinstance(error, ImproperlyConfigured) and error.__context__:
        error = error.__context__  # Celery wraps what it takes for a KeyError
    if isinstance(error, LanesError):
        click.echo(f"Error: {error}", err=True)
    else:
        sys.__excepthook__(kind, error, trace)


# Only ``celery`` itself imports this module, so the hook speaks for commands alone.
sys.excepthook = _one_line
