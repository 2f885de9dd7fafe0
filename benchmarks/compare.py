"""`make bench`: the lanes and what a user would otherwise pick, in turn, on the same load and the same simulated API.

Each measurement has a process, a broker, an API and workers of its own. Writes benchmarks/results/compare.json, the
plots beside it, and the table in README. By default all is sized to be done in 20 minutes; ``--full`` has the sizes of
the issue (hours), ``--quick`` tries whether all works (figures of no worth). Every measurement is made once, and then
again, the most telling first, until there are three or the time is over; the median counts. None is repeated if
critical's p99 was above a second at once, where a repetition shows nothing new. Ctrl-C ends it, and changes no file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from contenders import CONTENDERS
from plan import ONCE, PLAN, WITH_FAILURES
from scenarios import FULL, QUICK, SCENARIOS, Sizes

from demo.processes import interruptible

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results" / "compare.json"
RUNS = 3
#: Minutes after which no repetition ends: the whole has to be done in 20.
MINUTES = 18.5
#: Milliseconds of critical's p99 above which a measurement is not repeated.
HOPELESS_MS = 1_000.0
#: Seconds after which one measurement is given up.
LONGEST_S = 900.0


def measured(scenario: str, name: str, size: str) -> dict[str, Any] | None:
    """Run one measurement in a process of its own, and return its figures; None if it failed, which says why itself."""
    command = [sys.executable, __file__, "--measure", scenario, name, "--size", size]
    # Ctrl-C is for this process, which ends that one.
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, process_group=0) as process:
        try:
            text, _ = process.communicate(timeout=LONGEST_S)
        except subprocess.TimeoutExpired:
            return None
        finally:
            process.terminate()  # its rig goes with it
            process.wait()
    return None if process.returncode else dict(json.loads(text))


def is_hopeless(figures: dict[str, Any]) -> bool:
    """Whether critical waited so long that a repetition shows nothing new."""
    return any(figures.get(kind, {}).get("p99", 0) > HOPELESS_MS for kind in ("critical", "slow", "fast", "quiet"))


def median(runs: list[Any]) -> Any:
    """Return the median of each figure."""
    if isinstance(runs[0], dict):
        return {key: median([run[key] for run in runs]) for key in runs[0]}
    if not isinstance(runs[0], int | float):
        return runs[0]
    middle = round(statistics.median(runs), 3)
    return int(middle) if middle == int(middle) and all(isinstance(run, int) for run in runs) else middle


def machine() -> dict[str, Any]:
    """Name the machine."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }


class Comparison:
    """The measurements that were made, and how long each took."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Begin."""
        self.size, self.started, self.end_s = options.size, time.monotonic(), 60 * options.minutes
        self.runs: dict[tuple[str, str], list[Any]] = {pair: [] for pair in options.pairs}
        self._took: dict[tuple[str, str], float] = {}

    def run(self, times: int) -> None:
        """Measure everything once, contenders in turn; and again as often as wanted, as far as there is time."""
        for number in range(times):
            for pair in self.runs:
                if not number or self._is_worth_it(*pair):
                    self._measure(number, *pair)

    def _is_worth_it(self, scenario: str, name: str) -> bool:
        pair = (scenario, name)
        is_late = time.monotonic() - self.started + self._took[pair] > self.end_s
        is_known = scenario not in WITH_FAILURES and any(map(is_hopeless, self.runs[pair]))
        return not (is_late or is_known or scenario in ONCE or not self.runs[pair])

    def _measure(self, number: int, scenario: str, name: str) -> None:
        begun = time.monotonic()
        figures = measured(scenario, name, self.size)
        self.runs[scenario, name] += [figures] if figures else []
        self._took[scenario, name] = took = time.monotonic() - begun
        text = brief(figures) if figures else "FAILED"
        when = f"{took:3.0f} s of {time.monotonic() - self.started:4.0f}"
        print(f"{scenario:9} {name:12} run {number + 1}: {when}: {text}", file=sys.stderr, flush=True)

    def results(self) -> dict[str, dict[str, Any]]:
        """Return the runs of each scenario and contender, and their median."""
        found: dict[str, dict[str, Any]] = {}
        for (scenario, name), each in self.runs.items():
            if each:
                found.setdefault(scenario, {})[name] = {"runs": len(each), "median": median(each), "each": each}
        return found


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Run all that is asked for."""
    about, comparison = machine(), Comparison(options)
    comparison.run(options.runs)
    when = f"{datetime.now(UTC):%Y-%m-%d}"
    took = round((time.monotonic() - comparison.started) / 60, 1)
    return {"date": when, "minutes": took, "size": options.size, "machine": about, "results": comparison.results()}


def brief(figures: dict[str, Any]) -> str:
    """Return a line for people."""
    waits = {key: each for key, each in figures.items() if isinstance(each, dict) and "p99" in each}
    parts = [f"{key} {each['p50']:g}/{each['p99']:g} ms" for key, each in waits.items()]
    return ", ".join([*parts, *(f"{key} {value}" for key, value in figures.items() if key not in waits)])


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*SCENARIOS, *CONTENDERS]
    parser.add_argument("--only", default="", help=f"scenarios and contenders, by commas: {', '.join(names)}")
    parser.add_argument("--quick", dest="size", action="store_const", const="quick")
    parser.add_argument("--full", dest="size", action="store_const", const="full")
    parser.add_argument("--size", choices=["quick", "default", "full"], help=argparse.SUPPRESS)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="none is repeated that would end later")
    parser.add_argument("--json", action="store_true", help="print the figures, and change no file")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    parser.set_defaults(size="default")
    options = parser.parse_args()
    only = [name for name in options.only.split(",") if name]
    if unknown := set(only) - set(names):
        parser.error(f"no such scenario or contender: {', '.join(unknown)}")
    scenarios = [name for name in PLAN if name in only] or list(PLAN)
    named = [name for name in CONTENDERS if name in only]
    options.pairs = [(scenario, name) for scenario in scenarios for name in named or PLAN[scenario]]
    return options


def main() -> None:
    """Measure, or compare and write."""
    options = parse()
    if options.measure:
        scenario, name = options.measure
        sizes = {"quick": QUICK, "default": Sizes(), "full": FULL}[options.size]
        print(json.dumps(SCENARIOS[scenario](name, sizes)))
        return
    with interruptible():
        found = compare(options)
    print(json.dumps(found) if options.json else f"done in {found['minutes']} minutes")
    if not options.json and options.size != "quick":
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
        import plots
        import table

        plots.draw(found, RESULTS.parent)
        table.write(found)


if __name__ == "__main__":
    main()
