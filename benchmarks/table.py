"""The tables of README and docs/comparison.md, made from benchmarks/results/compare.json; a test compares them.

`python benchmarks/table.py` writes them anew from the figures that are there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "compare.json"
#: What a page's block begins behind; it ends where README's table and the end of the other page's say so.
BEGIN = "<!-- python benchmarks/table.py -->\n"
#: What stands where a contender was not measured, or has no such figure.
NONE = "-"
TITLES = {
    "lanes": "these lanes",
    "celery": "stock Celery",
    "celery-rate": "stock Celery, rate_limit",
    "bucket": "Celery + shared bucket",
    "bucket-split": "Celery + split bucket",
    "dramatiq": "dramatiq",
    "taskiq": "taskiq",
    "asyncio": "asyncio.PriorityQueue",
}
#: README has room for one of each kind.
IN_README = ("lanes", "celery", "bucket-split", "dramatiq", "taskiq", "asyncio")


class Column(NamedTuple):
    """One figure of all contenders.

    Attributes:
        head: its heading.
        scenario: where it is from.
        figure: what is sorted by: the smaller the better.
        text: how a cell reads.
    """

    head: str
    scenario: str
    figure: Callable[[Any], float]
    text: Callable[[Any], str]


def _ms(*path: str, quantiles: tuple[str, ...] = ("p50", "p99")) -> tuple[Callable[[Any], float], Callable[[Any], str]]:
    find = lambda run: [run[path[0]][q] for q in quantiles]  # noqa: E731
    return lambda run: find(run)[-1], lambda run: "/".join(map(seconds, find(run)))


def _plain(key: str, form: str = "{:,}", sign: int = 1) -> tuple[Callable[[Any], float], Callable[[Any], str]]:
    return lambda run: sign * run[key], lambda run: form.format(run[key])


SHORT = (
    Column("no limit", "free", *_ms("critical")),
    Column("limit 20/s", "limited", *_ms("critical")),
    Column("429s", "limited", *_plain("limited")),
    Column("bursts", "bursts", *_ms("wave")),
    Column("15/s", "bursts", *_ms("fast")),
    Column("used", "bursts", *_plain("used", "{:.0%}", -1)),
    Column("jobs/s", "nothing", *_plain("drained_per_s", sign=-1)),
)
LONG = {
    "limited": (
        Column("alone", "limited", *_ms("alone", quantiles=("p50", "p95", "p99", "max"))),
        Column("beside batch", "limited", *_ms("critical", quantiles=("p50", "p95", "p99", "max"))),
        Column("ratio p50", "limited", *[lambda run: run["beside_to_alone"]["p50"]] * 2),
        Column("ratio p95", "limited", *[lambda run: run["beside_to_alone"]["p95"]] * 2),
        Column("429s", "limited", *_plain("limited")),
        Column("time to ideal", "limited", *_plain("to_ideal")),
        Column("failed", "limited", *_plain("failed")),
        Column("unanswered", "limited", *_plain("unanswered")),
        Column("CPU ms/job", "limited", *_plain("cpu_ms_per_job")),
    ),
    "bursts": (
        *(
            Column(kind, "bursts", *_ms(kind, quantiles=("p50", "p95", "p99", "max")))
            for kind in ("wave", "slow", "fast")
        ),
        Column("limit used", "bursts", *_plain("used", "{:.1%}", -1)),
        Column("by batch alone", "bursts", *_plain("used_by_batch_alone", "{:.1%}", -1)),
        Column("429s", "bursts", *_plain("limited")),
    ),
    "free": (
        Column("critical", "free", *_ms("critical", quantiles=("p50", "p95", "p99", "max"))),
        Column("time to ideal", "free", *_plain("to_ideal")),
        Column("CPU ms/job", "free", *_plain("cpu_ms_per_job")),
    ),
    "nothing": (
        Column("queued/s", "nothing", *_plain("queued_per_s", sign=-1)),
        Column("drained/s", "nothing", *_plain("drained_per_s", sign=-1)),
        Column("CPU ms/job", "nothing", *_plain("cpu_ms_per_job")),
        Column("worker, MB", "nothing", *_plain("memory_mb")),
    ),
}


def seconds(ms: float) -> str:
    """Return a wait as people say it: 7.4, 26 or 950 (ms), 4.6s."""
    if ms >= 1_000:
        return f"{ms / 1_000:.1f}s"
    return f"{ms:.0f}" if ms >= 10 else f"{ms:.1f}"


def table(found: dict[str, Any], columns: tuple[Column, ...], only: Iterable[str] = TITLES) -> list[str]:
    """Return a table's lines; the best of each column is bold."""
    results = found["results"]
    names = [name for name in only if any(name in results.get(column.scenario, {}) for column in columns)]
    columns_of_cells = [_cells(results.get(column.scenario, {}), column, names) for column in columns]
    rows = zip(*columns_of_cells, strict=True)
    lines = [["", *(column.head for column in columns)], ["---"] * (len(columns) + 1)]
    lines += [[TITLES[name], *cells] for name, cells in zip(names, rows, strict=True)]
    return [f"|{'|'.join(line)}|\n" for line in lines]


def _cells(results: dict[str, Any], column: Column, names: list[str]) -> list[str]:
    figures: dict[str, float] = {}
    texts = dict.fromkeys(names, NONE)
    for name in names:
        try:
            run = results[name]["median"]
            figures[name], texts[name] = column.figure(run), str(column.text(run))
        except KeyError:
            continue
    best = min(figures.values(), default=0)
    return [f"**{texts[name]}**" if figures.get(name) == best else texts[name] for name in names]


def short(found: dict[str, Any]) -> str:
    """Return README's block."""
    return "".join(table(found, SHORT, IN_README))


def long(found: dict[str, Any]) -> str:
    """Return the block of docs/comparison.md."""
    machine = found["machine"]
    about = (
        f"{found['date']}, {machine['cores']} cores of {machine['cpu']}, {machine['system']}, "
        f"Python {machine['python']}, load {machine['load_before']} before; "
        f"sizes `{found['size']}`, {found['minutes']} minutes.\n"
    )
    parts = [about]
    for scenario, columns in LONG.items():
        if runs := found["results"].get(scenario):
            counts = ", ".join(f"{TITLES[name]} {run['runs']}" for name, run in runs.items() if run["runs"] > 1)
            parts += [f"\n### {HEADS[scenario]}\n\n", *table(found, columns)]
            parts += [f"\nRuns: {counts}; others 1.\n"] if counts else []
    return "".join(parts)


HEADS = {
    "limited": "Critical twice a second, alone and beside a batch; 20 requests a second allowed",
    "bursts": "Critical in bursts of 20, then 5/s, then 15/s, then none, beside an endless batch",
    "free": "No API limit: batch fills every slot",
    "nothing": "Jobs that do nothing, one worker of 8 slots",
}
#: Page -> its block, and what comes behind it.
PAGES: dict[Path, tuple[Callable[[dict[str, Any]], str], str]] = {
    ROOT / "README.md": (short, "\n"),
    ROOT / "docs" / "comparison.md": (long, "<!-- end -->\n"),
}


def with_block(text: str, block: str, end: str) -> str:
    """Return a page with its block replaced."""
    before, rest = text.split(BEGIN)
    behind = rest.partition(f"\n{end}")[2]
    return f"{before}{BEGIN}{block}{end}{behind}"


def write(found: dict[str, Any]) -> None:
    """Write the blocks of all pages."""
    for page, (block, end) in PAGES.items():
        page.write_text(with_block(page.read_text(), block(found), end))


if __name__ == "__main__":
    write(json.loads(RESULTS.read_text()))
