"""Steps: what the start is doing, for the person who waits for it."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console


class Steps:
    """A line for each step, on a terminal only; a spinner becomes a tick when the step is done."""

    def __init__(self, console: Console) -> None:
        """Show nothing yet."""
        self._console = console
        self._begin()

    def __enter__(self) -> Self:
        """Begin to show, without the steps of an earlier time."""
        self._begin()
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the lines away: what a person needs to know afterwards is said afterwards."""
        self._live.stop()

    def _begin(self) -> None:
        self._lines = Table.grid(padding=(0, 1))
        self._live = Live(self._lines, console=self._console, transient=True)

    @contextmanager
    def step(self, name: str, begun: float | None = None) -> Iterator[None]:
        """Show a step for as long as the block lasts, then how long it took.

        Args:
            name: of the step.
            begun: ``time.monotonic()`` of its beginning; by default now.
        """
        mark, took = _Mark(), _Mark()
        mark.shown = Spinner("dots", style="cyan")
        self._lines.add_row(mark, name, took)
        begun = begun or time.monotonic()
        yield
        mark.shown = Text("✓", style="green")
        took.shown = Text(f"{time.monotonic() - begun:.1f} s", style="dim")


class _Mark:
    """A cell whose content changes."""

    shown: Text | Spinner = Text("")

    def __rich__(self) -> Text | Spinner:
        return self.shown
