"""The scheduler's scripts as a reader finds them."""

import re
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "celery_app" / "scheduler" / "scripts"
SCRIPT_FILES = sorted(SCRIPTS.glob("*.lua"))
README = (SCRIPTS / "README.md").read_text()

#: ``key('line:' …)`` -> ``line:``.
KEY = re.compile(r"\bkey\('([a-z_:{]+)'")


def declared(header: str) -> set[int]:
    """Return the numbers of the arguments that a header names: ``ARGV[2]``, ``ARGV[8…11]``."""
    ranges = ((int(first), int(last or first)) for first, last in re.findall(r"ARGV\[(\d+)(?:…(\d*))?", header))
    return {number for first, last in ranges for number in range(first, last + 1)}


@pytest.mark.parametrize("path", SCRIPT_FILES, ids=lambda path: path.stem)
def test_a_header_names_every_argument_and_what_comes_back(path):
    """The caller need not read the rest."""
    text = path.read_text()
    header = re.match(r"(?:--.*\n)+", text)
    assert header is not None
    used = {int(number) for number in re.findall(r"ARGV\[(\d+)\]", text[header.end() :])}
    assert used <= declared(header[0])
    assert "KEYS: none" in header[0]
    assert "Returns" in header[0]


def test_the_map_has_every_script_and_every_key():
    """And no other."""
    names = {path.stem for path in SCRIPT_FILES} | {f"lib/{path.stem}" for path in SCRIPTS.glob("lib/*.lua")}
    words = set(re.findall(r"`([^`\n]+)`", README))
    assert names <= words, names - words
    assert {word for word in words if word.startswith("lib/")} <= names | {"lib/"}
    keys = {name for path in SCRIPTS.rglob("*.lua") for name in KEY.findall(path.read_text())}
    unmapped = {name for name in keys if name not in words and not name.startswith("budget:{")}
    assert not unmapped
