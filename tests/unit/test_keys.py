"""The table of keys, beside the scripts that spell the same names."""

import re
from pathlib import Path

from celery_app import keys
from celery_app.keys import KEYS, STREAM

ROOT = Path(__file__).parents[2]

#: ``key('line:' .. job.lane .. ':' .. job.tenant)`` and what follows the name of a budget.
IN_SCRIPTS = re.compile(r"\bkey\(((?:'[^']*'|[\w.#]+(?:\[\w+\])?)(?:\s*\.\.\s*(?:'[^']*'|[\w.#]+(?:\[\w+\])?))*)\)")
OF_BUDGETS = re.compile(r"\b(?:name|budget) \.\. '(:\w+)'")


def scripts() -> dict[str, str]:
    """Return the scheduler's scripts, by their names."""
    folder = ROOT / "celery_app" / "scheduler" / "scripts"
    return {path.stem: path.read_text() for path in folder.rglob("*.lua")}


def nameless(name: str) -> str:
    """Return a key's name whose places are all alike."""
    return re.sub(r"<\w+>", "<>", name)


def spelt(expression: str) -> str:
    """Return the same of an expression in Lua."""
    parts = re.findall(r"'[^']*'|[\w.#\[\]]*[\w#\]]", expression)
    return "".join(part.strip("'") if part.startswith("'") else "<>" for part in parts)


def test_the_scripts_use_no_key_that_is_not_in_the_table():
    """With as many parts, in the same places."""
    known = {nameless(key.name) for key in KEYS}
    used = {spelt(each) for text in scripts().values() for each in IN_SCRIPTS.findall(text)} - {"<>"}
    used |= {f"budget:{{<>}}{each}" for text in scripts().values() for each in OF_BUDGETS.findall(text)}
    assert len(used) > 30
    assert used <= known, used - known


def test_no_other_module_spells_a_key():
    """A name is changed in one place."""
    spellings = re.compile(r"[\"'}]lanes:[a-z_]+")
    for folder in ("celery_app", "tasks"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.name != "keys.py":
                assert not spellings.findall(path.read_text()), path


def test_a_key_has_its_parts_in_their_places():
    """Behind the broker's prefix, whatever the parts are."""
    assert STREAM.of("shop:", "<id>") == "shop:lanes:stream:<id>"
    assert keys.BATCH_SEEN.of("", "b") == "lanes:batch:b:seen"
    assert keys.JOBS.of("") == "lanes:jobs"
