"""What a command says, and returns, that was told to end."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from demo.interrupts import Interrupts

if TYPE_CHECKING:
    from collections.abc import Iterator

#: A shell's status for a command ended by Ctrl-C: 128 + SIGINT.
INTERRUPTED = 130


@contextmanager
def interruptible() -> Iterator[Interrupts]:
    """Run a block that Ctrl-C, SIGTERM or SIGHUP may end; then say so in one line and exit with 130."""
    try:
        with Interrupts() as interrupts:
            yield interrupts
    except (KeyboardInterrupt, click.Abort):
        click.echo("Stopped; nothing is left running.", err=True)
        sys.exit(INTERRUPTED)
