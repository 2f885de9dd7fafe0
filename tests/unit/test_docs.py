"""What README and docs show is what is there: code, links, commands and variables."""

from __future__ import annotations

import ast
import difflib
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from celery.bin.celery import celery

from celery_app.cli import lanes
from celery_app.variables import paths

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
RECIPES = sorted(path for path in (EXAMPLES / "recipes").iterdir() if path.is_file())
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

#: Language and text of a block.
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)

#: A link's target, and the commands that a page may name.
LINK = re.compile(r"\]\(([^)]+)\)")
LANES = re.compile(r"celery -A \w+ lanes(?: (\w+))?((?: --[\w-]+)*)")
CELERY = re.compile(r"celery -A \w+ (\w+)")
MAKE = re.compile(r"(?:\$ |`)make ([a-z-]+)")
VARIABLE = re.compile(r"\b(?:EZAI|LANES)_[A-Z_]*[A-Z]\b(?!_)")


def body(path: Path) -> str:
    """Return what a page shows of a file: all below its docstring."""
    text = path.read_text()
    if path.suffix != ".py":
        return text.strip()
    end = ast.parse(text).body[0].end_lineno or 0
    return "\n".join(text.splitlines()[end:]).strip()


def blocks(page: Path, language: str) -> Iterator[str]:
    """Yield a page's blocks of one language."""
    return (text.strip() for kind, text in BLOCK.findall(page.read_text()) if kind == language)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_the_page_of_recipes_shows_each_file_as_it_is(path: Path) -> None:
    """What a reader copies from docs/recipes.md is what a test has run."""
    page = (ROOT / "docs" / "recipes.md").read_text()
    link = f"[{path.name}](../examples/recipes/{path.name})\n\n"
    assert link in page, f"docs/recipes.md does not show {path.name}: put {link.strip()} above its block"
    shown = BLOCK.match(page, page.index(link) + len(link))
    assert shown, f"docs/recipes.md has no block right below its link to {path.name}"

    difference = "\n".join(
        difflib.unified_diff(shown[2].strip().splitlines(), body(path).splitlines(), "docs/recipes.md", path.name)
    )
    assert not difference, f"copy {path.name}, without its docstring, into its block:\n{difference}"


def test_the_page_of_recipes_shows_nothing_else() -> None:
    """Code that no test has run would rot."""
    found = {*blocks(ROOT / "docs" / "recipes.md", "python"), *blocks(ROOT / "docs" / "recipes.md", "sh")}

    assert found == {body(path) for path in RECIPES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_on_a_page_is_part_of_an_example(page: Path) -> None:
    """Each block stands, word for word, in a file that a test runs."""
    files = {path: path.read_text() for path in EXAMPLES.rglob("*.py")}
    for block in blocks(page, "python"):
        forms = [textwrap.indent(block, " " * indent) for indent in (0, 4, 8)]
        contained = any(form in text for text in files.values() for form in forms)
        assert contained, f"{_nearest(block, files, page)}"


def _nearest(block: str, files: dict[Path, str], page: Path) -> str:
    """Say what to copy, and from which file it seems to be."""
    lines = block.splitlines()
    name = max(files, key=lambda path: sum(line in files[path] for line in lines if line.strip()))
    missing = "\n".join(line for line in lines if line.strip() and line not in files[name])
    return f"a block of {page.name} is in no file of examples; copy it anew from {name.relative_to(ROOT)}:\n{missing}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """To a file that is there, and to a heading that it has."""
    for target in LINK.findall(BLOCK.sub("", page.read_text())):
        if "://" in target:
            continue
        name, _, heading = target.partition("#")
        path = page if not name else page.parent / name
        assert path.exists(), f"{page.name} links to {target}, which is not there"
        if heading:
            assert heading in headings(path), f"{page.name} links to {target}; there are {headings(path)}"


def headings(page: Path) -> list[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    found = re.findall(r"^#+ (.+)$", BLOCK.sub("", page.read_text()), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_variables_exist(page: Path) -> None:
    """Whoever is told to type something can type it."""
    text = page.read_text()
    for name, options in LANES.findall(text):
        known = {option for each in lanes.get_command(None, name).params for option in each.opts} if name else {}
        assert set(options.split()) <= {*known, "--help"}, f"{page.name}: celery … lanes {name}{options}"
    assert {*CELERY.findall(text)} <= {*celery.commands, "lanes", "flower"}, page.name
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {*MAKE.findall(text)} <= {*targets}, page.name
    assert {*VARIABLE.findall(text)} <= {*paths()}, page.name
