"""Who imports whom, in a function or for types alone, too: as the map in CONTRIBUTING says, and in no circle."""

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: Name of a module -> its file.
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("celery_app", "tasks", "demo")
    for path in (ROOT / package).rglob("*.py")
}

#: The map: a level a paragraph, whose further lines are indented, the topmost first. A name stands for all below it
#: that has no place of its own.
MAP = re.search(r"^```text\n(demo\n.*?)^```$", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL | re.MULTILINE)
LEVELS = {
    name: level for level, names in enumerate(re.split(r"\n(?! )", MAP[1] if MAP else "")) for name in names.split()
}


def imported(path: Path) -> Iterator[str]:
    """Yield the modules of ours that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports by a relative name"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in MODULES else str(node.module)


IMPORTS = {name: sorted(set(imported(path)) & MODULES.keys() - {name}) for name, path in MODULES.items()}


def place(module: str) -> str:
    """Return the name on the map that a module belongs to."""
    return max((name for name in LEVELS if f"{module}.".startswith(f"{name}.")), key=len)


def test_no_modules_import_each_other_in_a_circle():
    """There is an order in which each module comes behind all that it imports."""
    try:
        list(TopologicalSorter(IMPORTS).static_order())
    except CycleError as exc:
        pytest.fail(" <- ".join(exc.args[1]))


def test_no_import_runs_upward_on_the_map():
    """What a module imports is on its own level of the map in CONTRIBUTING, or below."""
    upward = [
        f"{module} ({place(module)}) imports {other} ({place(other)})"
        for module, others in IMPORTS.items()
        for other in others
        if LEVELS[place(other)] < LEVELS[place(module)]
    ]
    assert upward == []


def test_the_map_names_what_there_is():
    """Each name on the map is that of a module or package."""
    assert [name for name in LEVELS if name not in MODULES] == []
    assert LEVELS


def test_the_simulated_api_imports_nothing_of_the_lanes():
    """It stands for somebody else's server, so it has nothing in common with its callers."""
    simulator = {name: others for name, others in IMPORTS.items() if name.startswith("demo.simulator")}
    assert {other for others in simulator.values() for other in others if not other.startswith("demo.simulator")} == (
        set()
    )
