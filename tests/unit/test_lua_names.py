"""What the scheduler's scripts declare is used."""

import re
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest

SCRIPTS = Path(str(files("celery_app.scheduler").joinpath("scripts")))
SOURCES = {path: path.read_text("utf-8") for path in sorted(SCRIPTS.rglob("*.lua"))}


def code_of(text: str) -> str:
    """Return a script without its comments."""
    return re.sub(r"--.*", "", text)


USES = Counter(word for text in SOURCES.values() for word in re.findall(r"\w+", code_of(text)))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_every_name_is_used(path):
    """A function or a constant that nobody uses any more goes with its last use."""
    declared = re.findall(r"^local (?:function (\w+)|([\w, ]+?))(?= =|\(|$)", code_of(SOURCES[path]), re.MULTILINE)
    names = {name for function, others in declared for name in (function, *re.findall(r"\w+", others)) if name}
    assert {name for name in names if USES[name] < 2} == set()


def test_no_constant_is_written_twice():
    """Two of a name would be changed one by one."""
    names = Counter(name for text in SOURCES.values() for name in re.findall(r"^local ([A-Z_]+) =", text, re.MULTILINE))
    assert {name for name, number in names.items() if number > 1} == set()
