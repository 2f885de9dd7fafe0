"""The benchmarks as somebody finds them who wants to run one: nothing else runs them."""

import importlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
BENCHMARKS = sorted(path for path in (ROOT / "benchmarks").rglob("*.py") if "upstream_hooks" not in path.parts)
CONTENDERS = sorted(
    set((ROOT / "benchmarks" / "contenders").glob("[!_]*.py")) - {ROOT / "benchmarks/contenders/contender.py"}
)
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
#: Modules that only `make bench` installs.
ONLY_FOR_BENCHMARKS = {Requirement(line).name.replace("-", "_") for line in EXTRAS["bench"]}
#: Lines of a contender: what takes more is no recommendation.
MOST_LINES = 120
#: Of README, as tests/unit/test_docs.py has them.
MOST_README_LINES, MOST_README_WORDS = 120, 900

#: Seconds for a process to import what a benchmark needs, on a busy machine.
IN_TIME_S = 60.0

#: Import whatever the file given imports, also within its functions, and under no condition.
IMPORTS = """
import ast, importlib, sys
for node in ast.walk(ast.parse(open(sys.argv[1]).read())):
    if isinstance(node, ast.ImportFrom):
        module = importlib.import_module(node.module)
        for name in node.names:
            if not hasattr(module, name.name):
                importlib.import_module(f"{node.module}.{name.name}")
"""


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_what_a_benchmark_imports_is_there(path):
    """A name that has changed elsewhere has changed here."""
    folders = [str(ROOT / "benchmarks"), str(ROOT / "tests"), str(ROOT)]
    program = f"import sys; sys.path[:0] = {folders}\n{IMPORTS}"
    command = [sys.executable, "-W", "ignore", "-c", program, str(path)]
    # Contenders name the broker when they are imported, and none connects.
    env = {**os.environ, "CELERY_BROKER_URL": "redis://127.0.0.1:1/0"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=IN_TIME_S, check=False, env=env)
    missing = re.search(r"No module named '(\w+)", done.stderr)
    if missing and missing[1] in ONLY_FOR_BENCHMARKS:
        pytest.skip(f"needs the extra `bench`: {missing[1]}")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def table():
    """benchmarks/table.py, which needs nothing that is not installed."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        return importlib.import_module("table")
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


def test_the_pages_show_what_was_measured(table):
    """README's table and docs/comparison.md are what benchmarks/table.py makes of the figures in the repository."""
    found = table.measured()
    for page, block in table.PAGES.items():
        text, shown = page.read_text(), block(found) if found else table.NOT_YET
        assert table.with_block(text, shown) == text, f"python benchmarks/table.py writes {page.name} anew"


def quantiles(p99):
    """Return waits."""
    return {"jobs": 1, "unanswered": 0, "p50": 5.0, "p95": 7.0, "p99": p99, "max": p99}


def test_a_row_is_won_by_whoever_is_best(table):
    """The best figure of a column is bold, also a contender's, and is named; one that was not measured is a dash."""
    limited = {name: {"median": {"critical": quantiles(p99)}} for name, p99 in (("lanes", 9.0), ("bucket", 8.0))}
    found = {"results": {"limited": limited, "bursts": {"asyncio": {"median": {}}}}}
    columns = (table.SHORT[1], table.SHORT[3])
    assert table.table(found, columns)[2:] == [
        "|these lanes|5.0/9.0|-|\n",
        "|Celery + shared bucket|**5.0/8.0**|-|\n",
        "|asyncio.PriorityQueue|-|-|\n",
    ]
    assert (
        table.ahead(found, columns) == "Bold is the best. Others are ahead in: limit 20/s (Celery + shared bucket).\n"
    )


@pytest.mark.parametrize(("p99", "met"), [(40.0, "yes"), (60.0, "**no**")])
def test_what_was_missed_is_told(table, p99, met):
    """A target that is not met is a no; one that was not measured is left out."""
    lanes = {"median": {"critical": quantiles(p99)}}
    rows = table.targets({"results": {"overload": {"lanes": lanes}}}).splitlines()[2:]
    assert rows == [f"|and critical's p99 at most 50 ms|{p99} ms|{met}|"]


def test_readme_stays_one_screen_with_its_table(table):
    """The table of all contenders, each cell as long as can be, still fits into README's 120 lines and 900 words."""
    waits = {kind: quantiles(12_345.0) for kind in ("critical", "wave", "fast")}
    run = {"median": {**waits, "limited": 10_000, "used": 0.97, "drained_per_s": 1_000}}
    best = {"median": {**run["median"], "used": 1.0, **{kind: quantiles(9_999.0) for kind in waits}, "limited": 0}}
    scenarios = {column.scenario for column in table.SHORT}
    runs = dict.fromkeys(table.IN_README, run) | {"asyncio": best, "taskiq": best}
    text = (ROOT / "README.md").read_text()
    page = table.with_block(text, table.short({"results": dict.fromkeys(scenarios, runs)}))
    assert page.count("\n") <= MOST_README_LINES
    assert len(page.split()) <= MOST_README_WORDS


@pytest.mark.parametrize("path", CONTENDERS, ids=lambda path: path.stem)
def test_a_contender_is_short_and_says_what_it_follows(path):
    """Whoever doubts a figure can read the contender in a minute, and the page that it follows."""
    text = path.read_text()
    assert text.count("\n") <= MOST_LINES
    assert "https://" in text.split('"""')[1] or "README" in text.split('"""')[1]
