"""The beginning of a prompt that a call marks for the API's cache: how the scheduler tells which jobs share one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from celery_app.budget.cost import CACHE_FIELD, PROMPT_FIELDS, size_of
from celery_app.budget.variant import metered_model

_Blocks: TypeAlias = dict[str, Any]

#: Hex digits of the digest: 128 bits, so no two beginnings share one.
_DIGEST_LENGTH = 32

#: Characters below which the API keeps nothing: it wants 1,024 tokens at least (platform.claude.com, prompt caching).
#: So much text is more than anybody can guess, so its digest needs no secret: whoever reads Redis learns that two jobs
#: begin alike, and no more.
LEAST_CHARACTERS = 1_024

#: Milliseconds that the API keeps a beginning after its last use, by what ``ttl`` says; 5 minutes is its default.
_KEPT_MS = {"5m": 300_000, "1h": 3_600_000}

#: What the API heeds besides, of a beginning that ends within the messages.
_BESIDE_MESSAGES = ("tool_choice", "thinking")


#: Marks that a request may have: the API refuses more.
_MOST_MARKS = 4


def prefix_of(params: Mapping[str, Any]) -> str:
    """Return a request's beginnings, each up to one ``cache_control``, as the scheduler knows them.

    Args:
        params: the keyword arguments of ``create_message``, checked.

    Returns:
        Of each its digest, milliseconds that the API keeps it, characters, and tokens of what is no text, the longest
        last, as ``scheduler/scripts/lib/prefixes.lua`` has it. Empty where the API keeps nothing.
    """
    facts = (_fact(params, *each) for each in [*_beginnings(params)][-_MOST_MARKS:])
    return ",".join(filter(None, facts))


def _fact(params: Mapping[str, Any], blocks: _Blocks, mark: Any) -> str:
    size = size_of([blocks.get(field) for field in PROMPT_FIELDS])
    if size.characters < LEAST_CHARACTERS and not size.tokens:
        return ""
    ttl = mark.get("ttl") if isinstance(mark, Mapping) else None
    kept_ms = _KEPT_MS.get(ttl if isinstance(ttl, str) else "", _KEPT_MS["5m"])
    return f"{_digest(params, blocks)} {kept_ms} {size.characters} {size.tokens}"


def _digest(params: Mapping[str, Any], blocks: _Blocks) -> str:
    beside = [params.get(name) for name in _BESIDE_MESSAGES] if "messages" in blocks else []
    # Keys are not sorted: in another order they are another prompt to the API.
    text = json.dumps([metered_model(params), beside, blocks])
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_LENGTH]


def _beginnings(params: Mapping[str, Any]) -> Iterator[tuple[_Blocks, Any]]:
    """Yield the parameters up to each block that is marked, in the API's order, and its mark."""
    tools, system, messages = (_list(params.get(field)) for field in ("tools", "system", "messages"))
    for end, mark in _marks(tools):
        yield {"tools": tools[:end]}, mark
    for end, mark in _marks(system):
        yield {"tools": tools, "system": system[:end]}, mark
    before = {"tools": tools, "system": params.get("system")}
    for at, message in enumerate(messages):
        content = _list(message.get("content")) if isinstance(message, Mapping) else []
        for end, mark in _marks(content):
            yield {**before, "messages": [*messages[:at], {**message, "content": content[:end]}]}, mark
    if params.get(CACHE_FIELD):
        yield {**before, "messages": messages}, params[CACHE_FIELD]


def _marks(blocks: list[Any]) -> Iterator[tuple[int, Any]]:
    """Yield the number of blocks up to each that is marked, and its mark."""
    for end, block in enumerate(blocks, 1):
        if isinstance(block, Mapping) and block.get(CACHE_FIELD):
            yield end, block[CACHE_FIELD]


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []
