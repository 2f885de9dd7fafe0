"""The beginning of a prompt that a call marks for the API's cache: how the scheduler tells which jobs share one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
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


def prefix_of(params: Mapping[str, Any]) -> str:
    """Return a request's beginning up to its last ``cache_control``, as the scheduler knows it.

    Args:
        params: the keyword arguments of ``create_message``, checked.

    Returns:
        Digest, milliseconds that the API keeps it, characters, and tokens of what is no text, as
        ``scheduler/scripts/lib/prefixes.lua`` has it. Empty where the API keeps nothing.
    """
    blocks, mark = _marked(params)
    if not blocks:
        return ""
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


def _marked(params: Mapping[str, Any]) -> tuple[_Blocks, Any]:
    """Return the parameters up to the last block that is marked, in the API's order, and its mark."""
    tools, system, messages = (_list(params.get(field)) for field in ("tools", "system", "messages"))
    if params.get(CACHE_FIELD):
        return {field: params.get(field) for field in PROMPT_FIELDS}, params[CACHE_FIELD]
    for at in reversed(range(len(messages))):
        content = _list(messages[at].get("content")) if isinstance(messages[at], Mapping) else []
        end = _end(content)
        if end:
            last = {**messages[at], "content": content[:end]}
            before = {"tools": tools, "system": params.get("system")}
            return {**before, "messages": [*messages[:at], last]}, content[end - 1][CACHE_FIELD]
    if end := _end(system):
        return {"tools": tools, "system": system[:end]}, system[end - 1][CACHE_FIELD]
    if end := _end(tools):
        return {"tools": tools[:end]}, tools[end - 1][CACHE_FIELD]
    return {}, None


def _end(blocks: list[Any]) -> int:
    """Return the number of blocks up to the last that is marked; 0: none is."""
    marked = (at for at, block in enumerate(blocks, 1) if isinstance(block, Mapping) and block.get(CACHE_FIELD))
    return max(marked, default=0)


def _list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []
