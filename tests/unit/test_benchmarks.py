"""The benchmarks as somebody finds them who wants to run one: nothing else runs them."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = sorted((ROOT / "benchmarks").glob("*.py"))

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
    folders = [str(path.parent), str(ROOT / "tests"), str(ROOT)]
    program = f"import sys; sys.path[:0] = {folders}\n{IMPORTS}"
    command = [sys.executable, "-W", "ignore", "-c", program, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=IN_TIME_S, check=False)
    assert done.returncode == 0, done.stderr
