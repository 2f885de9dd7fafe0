"""The plot that docs/comparison.md shows, made from benchmarks/results/compare.json.

`python benchmarks/plots.py` draws it anew from the figures that are there.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure
from table import RESULTS, TITLES

if TYPE_CHECKING:
    from pathlib import Path

OURS, OTHERS, PALE = "#0b6e4f", "#8a8f98", "#c9ccd1"


def draw(found: dict[str, Any], folder: Path) -> None:
    """Write compare.svg: critical's waits beside a batch, and what bursts leave of waits and of the limit."""
    # The same figures give the same file.
    mpl.rcParams.update({"svg.hashsalt": "ezai-lanes", "svg.fonttype": "none", "font.size": 9})
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    _waits(left, {name: run["median"]["critical"] for name, run in found["results"].get("limited", {}).items()})
    _bursts(right, {name: run["median"] for name, run in found["results"].get("bursts", {}).items()})
    figure.savefig(folder / "compare.svg", metadata={"Date": None})


def _waits(axes: Any, waits: dict[str, dict[str, float]]) -> None:
    names = [name for name in TITLES if name in waits][::-1]
    for y, name in enumerate(names):
        color = OURS if name == "lanes" else OTHERS
        axes.plot([waits[name]["p50"], waits[name]["p99"]], [y, y], color=color, linewidth=3, solid_capstyle="round")
        axes.plot([waits[name]["p50"]], [y], "o", color=color)
    axes.set_yticks(range(len(names)), [TITLES[name] for name in names])
    axes.set_xscale("log")
    axes.set(xlabel="ms", title="critical's wait beside a batch, p50 to p99")
    axes.grid(axis="x", color=PALE, linewidth=0.5)


def _bursts(axes: Any, runs: dict[str, Any]) -> None:
    for name, run in runs.items():
        color = OURS if name == "lanes" else OTHERS
        axes.plot([run["fast"]["p99"]], [100 * run["used"]], "o", color=color)
        label = {"xytext": (5, 3), "textcoords": "offset points", "color": color, "fontsize": 8}
        axes.annotate(TITLES[name], (run["fast"]["p99"], 100 * run["used"]), **label)
    axes.set_xscale("log")
    axes.margins(x=0.25, y=0.15)
    axes.set(xlabel="critical's p99 at 15/s, ms", ylabel="% of the limit used", title="bursts: upper left is best")
    axes.grid(color=PALE, linewidth=0.5)


if __name__ == "__main__":
    draw(json.loads(RESULTS.read_text()), RESULTS.parent)
