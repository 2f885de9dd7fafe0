"""The benchmarks as somebody finds them who wants to run one: nothing else runs them."""

import importlib.util
import json
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


def table():
    """Return benchmarks/table.py, which needs nothing that is not installed."""
    spec = importlib.util.spec_from_file_location("table", ROOT / "benchmarks" / "table.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_show_what_was_measured():
    """README's table and docs/comparison.md are what benchmarks/table.py makes of the figures in the repository."""
    made = table()
    found = json.loads(made.RESULTS.read_text())
    for page, (block, end) in made.PAGES.items():
        text = page.read_text()
        assert made.with_block(text, block(found), end) == text, f"python benchmarks/table.py writes {page.name} anew"


def test_a_row_is_won_by_whoever_is_best():
    """The best figure of a column is bold, also a contender's; one that was not measured is a dash."""
    made = table()
    waits = {
        name: {"median": {"critical": {"p50": 5.0, "p99": p99}}} for name, p99 in (("lanes", 9.0), ("bucket", 8.0))
    }
    column = made.SHORT[1]._replace(scenario="limited")
    rows = made.table({"results": {"limited": waits, "bursts": {"asyncio": {"median": {}}}}}, (column, made.SHORT[3]))
    assert rows[2:] == [
        "|these lanes|5.0/9.0|-|\n",
        "|Celery + shared bucket|**5.0/8.0**|-|\n",
        "|asyncio.PriorityQueue|-|-|\n",
    ]


@pytest.mark.parametrize("path", CONTENDERS, ids=lambda path: path.stem)
def test_a_contender_is_short_and_says_what_it_follows(path):
    """Whoever doubts a figure can read the contender in a minute, and the page that it follows."""
    text = path.read_text()
    assert text.count("\n") <= MOST_LINES
    assert "https://" in text.split('"""')[1] or "README" in text.split('"""')[1]
