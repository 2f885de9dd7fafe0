"""What the commands have in common: whose lanes, where to print, and how far they have got."""

from __future__ import annotations

import io
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from celery_app.settings import has_lanes

if TYPE_CHECKING:
    from rich.console import Console

#: Characters of a line where no terminal says how wide it is: a table in a log file has to stay in one piece.
PLAIN_WIDTH = 160

#: Seconds that a command may be silent; and between two words of it, on a terminal and in a log file.
_SILENT, _EVERY, _EVERY_PLAIN = 2.0, 0.2, 2.0


def app_of(ctx: click.Context) -> Any:
    """Return the application that a command is for.

    Raises:
        click.ClickException: it has no lanes.
    """
    app = ctx.obj.app
    if not has_lanes(app):
        raise click.ClickException(f"{app!r} has no lanes: call celery_app.install(app) where it is made")
    return app


def command_of(ctx: click.Context) -> str:
    """Return how a command has to begin to be about the same application: ``celery -A proj``."""
    parts = iter(sys.argv[1:])
    for part in parts:
        if part in {"-A", "--app"}:
            return f"celery -A {next(parts, '')}"
        if part.startswith(("-A", "--app=")):
            return f"celery -A {part.removeprefix('--app=').removeprefix('-A')}"
    return f"celery -A {ctx.obj.app.main or 'celery_app'}"


def waits(who: str, reason: str) -> str:
    """Return a sentence: "batch waits for …"."""
    return f"{who} waits: {reason}" if reason.startswith("no ") else f"{who} waits for {reason}"


def console() -> Console:
    """Return where to print tables: no cell is taken for a mark-up, and none fails that cannot be written."""
    from rich.console import Console

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    made = Console(highlight=False, markup=False)
    if not made.is_terminal:
        made.width = PLAIN_WIDTH
    return made


def printable(text: str) -> str:
    """Return a text without what a terminal would obey; names are whatever their producer wrote."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)


class ProgressLine:
    """Says on stderr how far a command has got, if that takes longer than a person waits without a word."""

    def __init__(self, doing: str) -> None:
        """Say nothing yet; `doing` is the line's beginning: ``replaying``."""
        self._doing = doing
        self._stream = sys.stderr
        self._moves = self._stream.isatty()
        self._next = time.monotonic() + _SILENT
        self._said = False

    def __call__(self, done: int, total: int) -> None:
        """Note how many of how many are done."""
        now = time.monotonic()
        if now >= self._next:
            self._next, self._said = now + (_EVERY if self._moves else _EVERY_PLAIN), True
            line = f"{self._doing}: {done:,} of {total:,}"
            self._stream.write(f"\r{line}\x1b[K" if self._moves else f"{line}\n")
            self._stream.flush()

    def end(self) -> None:
        """Leave the terminal's line to what comes next."""
        if self._said and self._moves:
            click.echo(err=True)
