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

from celery_app.configuration.variables import paths
from celery_app.keys import KEYS
from celery_app.lanes import LANES as ALL_LANES
from celery_lanes_plugin import lanes
from tasks import LaneTask

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


#: The first screen: what a reader has seen after a minute.
MOST_LINES, MOST_WORDS = 120, 900
#: README's picture, on a slow line.
MOST_BYTES = 150_000


def test_readme_is_one_screen() -> None:
    """As `wc` counts: what does not fit belongs in docs/."""
    text = (ROOT / "README.md").read_text()
    assert text.count("\n") <= MOST_LINES
    assert len(text.split()) <= MOST_WORDS


def test_readme_links_to_every_page() -> None:
    """A page that nothing leads to is not read."""
    targets = LINK.findall((ROOT / "README.md").read_text())
    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} <= {*targets}


def test_the_picture_is_a_run_of_the_demo() -> None:
    """The picture is small, and shows what the demo says when it has done well."""
    picture = (ROOT / "docs" / "demo.svg").read_bytes()
    assert len(picture) <= MOST_BYTES
    shown = " ".join(re.sub(r"<[^>]+>", "", picture.decode()).replace("&#160;", " ").split())
    for words in ("$ make demo", "critical", "it never waited behind the batch"):
        assert words in shown


def table(page: Path, heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading, without its head."""
    below = page.read_text().split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line.strip("| ").split(" | ") for line in below.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def test_the_page_of_settings_has_the_defaults() -> None:
    """Each field of a lane is there, with the default that each lane has."""
    rows = {row[0].strip("`"): row[1:] for row in table(ROOT / "docs" / "install.md", "Settings of a lane")}
    assert {f"LANES_BATCH_{field}" for field in rows} == {name for name in paths() if "LANES_BATCH_" in name}
    for field, shown in rows.items():
        for lane, text in zip(ALL_LANES, shown, strict=False):
            value = getattr(lane, field.lower())
            words = {"None": "none", "True": "on", "False": "off"}
            assert text == (words.get(str(value)) or f"{value:g}"), f"{lane.name} {field}"


def test_the_page_of_installing_has_the_attributes_of_a_lane_task() -> None:
    """What the page says of LaneTask is what it has."""
    for what, where, why in table(ROOT / "docs" / "install.md", "What a lane task has"):
        name, _, value = what.strip("`").partition(" = ")
        assert (where, bool(why)) == ("`tasks.LaneTask`", True)
        assert hasattr(LaneTask, name)
        if value:
            assert getattr(LaneTask, name) == ast.literal_eval(value), name


def test_the_tables_of_installing_say_what_where_and_why() -> None:
    """No cell of what `install` changes is empty, so that a test can compare it with what is there."""
    for heading in ("What `install(app)` changes", "What a lane task has", "What a worker that serves a lane has"):
        rows = table(ROOT / "docs" / "install.md", heading)
        assert rows
        assert all(len(row) == 3 and all(row) for row in rows), heading


#: The first word of a key in Redis.
KEY = re.compile(r"\blanes:([a-z_]+)")


def test_the_page_of_operations_names_every_key_in_redis() -> None:
    """Whoever looks into Redis finds each key there, and none that is gone."""
    page = (ROOT / "docs" / "operations.md").read_text().split("\n## Redis\n", 1)[1]
    told, known = {*KEY.findall(page)}, {*KEY.findall(" ".join(f"lanes:{key.name}" for key in KEYS))}
    assert told == known, told ^ known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_keys_on_a_page_are_those_of_the_page_of_operations(page: Path) -> None:
    """A command that looks for a key finds one."""
    known = {*KEY.findall((ROOT / "docs" / "operations.md").read_text().split("\n## Redis\n", 1)[1])}
    assert {*KEY.findall(page.read_text())} <= known


#: The page of the code, and where it says that its scripts are.
ARCHITECTURE, SCRIPTS = ROOT / "docs" / "architecture.md", ROOT / "celery_app" / "scheduler" / "scripts"

#: A file on that page, and a name in it, if one stands behind it.
PLACE = re.compile(r"`([\w/.-]+\.(?:py|lua))`(?:\s`([\w.]+)`)?")

#: What a script defines for all: functions, and constants, of which there may be several in a line.
LUA_NAMES = re.compile(r"^local (?:function (\w+)|(\w+(?:, \w+)*) =)", re.MULTILINE)

#: What a newcomer asks, and how long such a page may be.
QUESTIONS, MOST_PAGE_LINES = 10, 150


def names_in(path: Path) -> set[str]:
    """Return what a file defines: functions, classes, constants, and members of classes as ``Class.name``."""
    text = path.read_text()
    if path.suffix == ".py":
        return set(defined(ast.parse(text).body))
    return {name for pair in LUA_NAMES.findall(text) for part in pair for name in part.split(", ") if name}


def defined(body: list[ast.stmt], within: str = "") -> Iterator[str]:
    """Yield what the statements of a module or a class define."""
    for statement in body:
        match statement:
            case ast.ClassDef(name=name):
                yield within + name
                yield from defined(statement.body, f"{within}{name}.")
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield within + name
            case ast.Assign() | ast.AnnAssign():
                targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
                found = (node for target in targets for node in ast.walk(target))
                yield from (within + node.id for node in found if isinstance(node, ast.Name))


def test_each_place_on_the_page_of_the_code_is_there() -> None:
    """The page names files and what is defined in them, as they are today."""
    page = ARCHITECTURE.read_text()
    places = PLACE.findall(page)
    assert len(places) == len(re.findall(r"\.(?:py|lua)`", page)), "a file is written in another way than all others"
    for file, name in places:
        path = (SCRIPTS if file.endswith(".lua") else ROOT) / file
        assert path.is_file(), f"{file} is not there"
        assert not name or name in names_in(path), f"{file} has no {name}; it has {sorted(names_in(path))}"


def test_the_page_of_the_code_is_short_and_answers_each_question_with_one_place() -> None:
    """A reader is sent to one file, and to one name in it."""
    assert ARCHITECTURE.read_text().count("\n") <= MOST_PAGE_LINES
    answers = [row[-1] for row in table(ARCHITECTURE, "Where do I change …?")]
    assert len(answers) == QUESTIONS
    for answer in answers:
        found = PLACE.fullmatch(answer)
        assert found, answer
        assert found[2], answer
