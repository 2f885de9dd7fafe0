"""Faults made on purpose, one after the other, and whether the fast tests named for each find it: ``make breaks``.

The faults are in ``breaks.toml``. Each is put into a copy of the project, where nothing else is changed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

#: Seconds for the tests of one fault; a fault may have them wait until their deadlines.
WITHIN = 300.0

#: What pytest returns if tests failed.
FAILED = 1


def faults() -> list[dict[str, Any]]:
    """Return the table: name, file, old, new, and the tests by their file, as words for pytest's ``-k``."""
    found: list[dict[str, Any]] = tomllib.loads((ROOT / "tests/breaks.toml").read_text("utf-8"))["fault"]
    return found


def copy_project(folder: Path) -> None:
    """Copy what is in version control, as it is now."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True)  # noqa: S607
    for name in listed.stdout.split("\n"):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)


def outcome(folder: Path, tests: dict[str, str]) -> str:
    """Run tests in a copy, and return what came of them in a word, and the test that failed."""
    words = " or ".join(f"({each})" for each in tests.values())
    command = [sys.executable, "-m", "pytest", "-x", "-q", *(f"tests/{file}" for file in tests), "-k", words]
    try:
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)}, capture_output=True, text=True,
            timeout=WITHIN, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "caught: the tests hang"
    failed = re.search(r"^(?:FAILED|ERROR) tests/(\S+)", done.stdout, re.MULTILINE)
    if done.returncode == FAILED and failed:
        return f"caught: {failed[1]}"
    return "SURVIVED" if done.returncode == 0 else f"NO TESTS ({done.returncode}): {done.stdout[-300:]}"


def break_it(fault: dict[str, Any]) -> str:
    """Return what comes of the tests beside a fault."""
    with tempfile.TemporaryDirectory(prefix="breaks-") as name:
        copy_project(Path(name))
        broken = Path(name, fault["file"])
        text = broken.read_text("utf-8")
        assert text.count(fault["old"]) == 1, f"{fault['name']}: its text is not once in {fault['file']}"
        broken.write_text(text.replace(fault["old"], fault["new"]), "utf-8")
        return outcome(Path(name), fault["tests"])


def main(names: list[str]) -> int:
    """Break what is named, or all; return 1 if a fault has survived."""
    missed = 0
    for fault in faults():
        if not names or any(name in fault["name"] for name in names):
            begun = time.monotonic()
            came = break_it(fault)
            missed += not came.startswith("caught")
            print(f"{fault['name']:<52} {time.monotonic() - begun:4.0f} s  {came}", flush=True)  # noqa: T201 - its purpose
    return min(missed, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
