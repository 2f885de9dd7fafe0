"""What is imported is declared: a project that installs this package alone has all that it needs."""

import ast
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
CONFIGURATION = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = CONFIGURATION["project"]
PACKAGES = ("celery_app", "demo", "tasks")
MODULES = sorted([*ROOT.glob("*.py"), *(path for name in PACKAGES for path in ROOT.glob(f"{name}/**/*.py"))])
OURS = {*PACKAGES, *(path.stem for path in ROOT.glob("*.py"))}

#: Folder or module -> the extra that it belongs to; all others have to do with what is always installed.
EXTRAS = {
    "celery_app/cli/exporter.py": "exporter",
    "celery_app/flower/": "flower",
    "celery_app/metrics/prometheus.py": "exporter",
    "celery_app/spans.py": "tracing",
    "demo/": "embedded",
}

#: What is imported only where somebody else has done so before: pytest loads its plug-ins itself.
BROUGHT_ALONG = {"pytest_": {"pytest"}, "celery_app/testing": {"pytest"}}

#: Distributions whose module has another name.
NAMES = {"pydantic-settings": "pydantic_settings", "opentelemetry-api": "opentelemetry"}


def declared(extra: str | None = None) -> set[str]:
    """Return the modules of what is declared, always or with an extra."""
    lines = [*PROJECT["dependencies"], *(PROJECT["optional-dependencies"][extra] if extra else [])]
    names = [Requirement(line).name for line in lines]
    return {NAMES.get(name, name) for name in names}


def imported(path: Path) -> Iterator[str]:
    """Yield the top-level names of what a module imports, in functions and for types, too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_import_is_declared(path):
    """A module imports the standard library, this package, and what pyproject.toml declares for it."""
    name = str(path.relative_to(ROOT))
    extra = next((extra for start, extra in EXTRAS.items() if name.startswith(start)), None)
    brought = next((names for start, names in BROUGHT_ALONG.items() if name.startswith(start)), set())
    foreign = {*imported(path)} - OURS - {*sys.stdlib_module_names, "_typeshed"}

    assert foreign - declared(extra) - brought == set()


def test_what_a_broker_needs_is_not_pinned_to_one_version():
    """kombu's extra pins `packaging`; the lanes name what it stands for, and leave a project its own versions."""
    requirements = {Requirement(line).name: Requirement(line) for line in PROJECT["dependencies"]}
    assert requirements["kombu"].extras == set()
    for requirement in requirements.values():
        assert not any(each.operator in {"==", "==="} for each in requirement.specifier), requirement
    redis = requirements["redis"].specifier
    assert [redis.contains(version) for version in ("6.3.0", "6.4.0", "8.0.0", "8.0.1", "9.0.0")] == [
        False,
        True,
        False,
        True,
        False,
    ]


def test_the_wheel_has_every_module_but_the_demos():
    """What stands beside the packages goes into the wheel, too: Celery and pytest load it by its name."""
    wheel = CONFIGURATION["tool"]["hatch"]["build"]["targets"]["wheel"]
    included = {*wheel.get("only-include", ()), *wheel.get("packages", ())}
    assert included == {"celery_app", "tasks", *(path.name for path in ROOT.glob("*.py"))}


def test_the_installed_packages_do_without_the_demo():
    """Nothing that the wheel has imports the demo; its commands are looked for by name."""
    shipped = [path for path in MODULES if path.relative_to(ROOT).parts[0] != "demo"]
    assert [path for path in shipped if "demo" in imported(path)] == []


def test_the_simulated_api_needs_nothing_of_the_lanes():
    """An independent witness, and able to stand beside an installed wheel."""
    simulator = ROOT / "demo" / "simulator"
    assert [path for path in simulator.glob("*.py") if {"celery_app", "tasks"} & {*imported(path)}] == []
