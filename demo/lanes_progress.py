"""LanesProgress: a bar for each lane, while the demo runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from rich.progress import BarColumn, Progress, TextColumn

from celery_app.metrics.stats import get_queue_stats

if TYPE_CHECKING:
    from rich.console import Console

    from demo.run import Run


class LanesProgress:
    """What is answered, what is queued and how long it waits; on a terminal only."""

    def __init__(self, app: Any, console: Console) -> None:
        """Show nothing yet."""
        self._app = app
        self._shown = console.is_terminal
        self._progress = Progress(
            TextColumn("{task.description:8}", style="bold"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:>4.0f} of {task.total:<4.0f} answered"),
            TextColumn("{task.fields[queued]:>4} queued"),
            TextColumn("{task.fields[waits]}", style="dim"),
            console=console,
            transient=True,
        )
        self._bars: dict[str, Any] = {}

    def __enter__(self) -> Self:
        """Begin to show."""
        if self._shown:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the bars away: the table comes in their place."""
        if self._shown:
            self._progress.stop()

    def show(self, run: Run) -> None:
        """Show how far a run is."""
        if not self._shown:
            return
        stats = get_queue_stats(self._app)["lanes"]
        for lane, jobs in run.jobs.items():
            total = run.planned(lane) or len(jobs)
            self._progress.update(
                self._bar(lane),
                completed=run.answered(lane),
                total=total,
                queued=stats[lane]["depth"],
                waits=_waits(stats[lane]["wait_ms"]),
            )

    def _bar(self, lane: str) -> Any:
        if lane not in self._bars:
            self._bars[lane] = self._progress.add_task(lane, total=0, queued=0, waits="")
        return self._bars[lane]


def _waits(wait_ms: dict[str, float | None]) -> str:
    if wait_ms["p50"] is None or wait_ms["max"] is None:
        return ""
    return f"wait {in_words(wait_ms['p50'])}, worst {in_words(wait_ms['max'])}"


def in_words(ms: float) -> str:
    """Return a wait as a person says it: "6 ms", "14.2 s"."""
    return f"{ms:,.0f} ms" if ms < 1_000 else f"{ms / 1_000:,.1f} s"  # noqa: PLR2004 - ms in a second
