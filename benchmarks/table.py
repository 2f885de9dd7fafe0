"""The tables of README and docs/comparison.md, made from benchmarks/results/compare.json; a test compares them.

`python benchmarks/table.py` writes them anew from the figures that are there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from columns import HEADS, LONG, SHORT, Column
from targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "compare.json"
#: What a page's block stands between, and what it says before the first `make bench`.
BEGIN, END = "<!-- python benchmarks/table.py -->\n", "<!-- end -->\n"
NOT_YET = "Not measured yet: `make bench` writes it here.\n"
PLOT = """![Critical's waits beside a batch, and what bursts leave of the limit](../benchmarks/results/compare.svg)

"""
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


def ahead(found: dict[str, Any], columns: tuple[Column, ...], only: Iterable[str] = TITLES) -> str:
    """Say in which columns somebody else is better than the lanes, or as good."""
    told = {}
    for column in columns:
        runs = found["results"].get(column.scenario, {})
        names = [name for name in only if name in runs]
        cells = zip(names, _cells(runs, column, names), strict=True)
        best = [TITLES[name] for name, cell in cells if cell.startswith("**")]
        if best and TITLES["lanes"] not in best:
            told[column.head] = " and ".join(best)
    rows = ", ".join(f"{head} ({names})" for head, names in told.items())
    return f"Bold is the best. Others are ahead in: {rows}.\n" if rows else "Bold is the best.\n"


def short(found: dict[str, Any]) -> str:
    """Return README's block."""
    return "".join([*table(found, SHORT, IN_README), "\n", ahead(found, SHORT, IN_README)])


def targets(found: dict[str, Any]) -> str:
    """Return what the lanes were to show, and whether they did."""
    rows = ["|what was asked for|measured|met|\n|---|---|---|\n"]
    for target in TARGETS:
        try:
            value = target.value(dict(found["results"].items()))
        except KeyError:
            continue
        rows.append(f"|{target.words}|{target.form.format(value)}|{'yes' if target.is_met(value) else '**no**'}|\n")
    return "".join(rows)


def long(found: dict[str, Any]) -> str:
    """Return the block of docs/comparison.md."""
    machine = found["machine"]
    about = (
        f"{found['date']}, {machine['cores']} cores of {machine['cpu']}, {machine['system']}, "
        f"Python {machine['python']}, load {machine['load_before']} before; "
        f"sizes `{found['size']}`, {found['minutes']} minutes.\n"
    )
    parts = [PLOT, about, "\n", targets(found)]
    for scenario, columns in LONG.items():
        if runs := found["results"].get(scenario):
            counts = ", ".join(f"{TITLES[name]} {run['runs']}" for name, run in runs.items() if run["runs"] > 1)
            parts += [f"\n### {HEADS[scenario]}\n\n", *table(found, columns)]
            parts += [f"\nRuns: {counts}; others 1.\n"] if counts else []
    return "".join(parts)


#: Page -> its block.
PAGES: dict[Path, Callable[[dict[str, Any]], str]] = {ROOT / "README.md": short, ROOT / "docs" / "comparison.md": long}


def measured() -> dict[str, Any] | None:
    """Return the figures that are there."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else None


def with_block(text: str, block: str) -> str:
    """Return a page with its block replaced."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}{block}{END}{rest.partition(END)[2]}"


def write(found: dict[str, Any] | None) -> None:
    """Write the blocks of all pages."""
    for page, block in PAGES.items():
        page.write_text(with_block(page.read_text(), block(found) if found else NOT_YET))


if __name__ == "__main__":
    write(measured())
