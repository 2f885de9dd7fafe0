"""The calls of a model that the API counts apart from its others."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

#: Stands between a model and its variant, as in ``claude-opus-4-6+fast``. No known model has one in its name.
MARK = "+"

#: What `speed` may say and still be what everybody gets.
_USUAL_SPEEDS = (None, "standard", "default", "auto")

#: A word that may become part of a name; anything else is for the API to refuse.
_WORD = re.compile(r"[a-z][a-z0-9-]{0,31}")

#: Beginning of a beta's name, which ends in its date -> its variant. Of the betas in SDK 2.14, only this one has
#: limits of its own (platform.claude.com, rate limits); ``fast-mode-…`` merely allows `speed` to say "fast".
_BETAS = {"context-1m-": "context-1m"}

#: The header that names betas.
BETA_HEADER = "anthropic-beta"

#: Where a call may say what sets it apart. Most say nothing.
_SAYING = {"extra_body", "speed", "extra_headers", "betas", "anthropic_beta"}


def metered_model(params: Mapping[str, Any]) -> str:
    """Return the name under which a call is counted: its model's, with ``+variant`` where it has one.

    Args:
        params: the keyword arguments of ``create_message``, checked.
    """
    variant = variant_of(params)
    return f"{params['model']}{MARK}{variant}" if variant else str(params["model"])


def variant_of(params: Mapping[str, Any]) -> str:
    """Return which of its model's limits a call draws on; empty: the usual ones.

    ``fast`` (or whatever else `speed` says) goes before ``context-1m``: fast calls have one limit for prompts of any
    length (platform.claude.com, fast mode).
    """
    if params.keys().isdisjoint(_SAYING):
        return ""
    body = params.get("extra_body")
    body = body if isinstance(body, Mapping) else {}
    speed = body.get("speed", params.get("speed"))
    if speed not in _USUAL_SPEEDS and isinstance(speed, str) and _WORD.fullmatch(speed):
        return speed
    betas = set(_betas(params, body))
    return next((name for start, name in _BETAS.items() if any(beta.startswith(start) for beta in betas)), "")


def split_model(name: str) -> tuple[str, str]:
    """Return the model and the variant of a `metered_model`."""
    model, mark, variant = name.rpartition(MARK)
    return (model, variant) if mark and model and _WORD.fullmatch(variant) else (name, "")


def pattern_of_variant(patterns: Iterable[str], model: str, variant: str) -> str | None:
    """Return the first pattern that names the variant and fits the model, None if there is none."""
    for pattern in patterns:
        model_pattern, mark, variant_pattern = pattern.rpartition(MARK)
        if mark and fnmatchcase(variant, variant_pattern) and fnmatchcase(model, model_pattern):
            return pattern
    return None


def _betas(params: Mapping[str, Any], body: Mapping[str, Any]) -> Iterator[str]:
    """Give the betas that a call asks for, wherever it does: as the SDK's `betas`, in a header, or in the body."""
    headers = params.get("extra_headers")
    said = [value for name, value in _items(headers) if name.lower() == BETA_HEADER]
    for fields in (params, body):
        said += [fields.get("betas"), fields.get("anthropic_beta")]
    for value in said:
        for each in value if isinstance(value, list | tuple) else [value]:
            if isinstance(each, str):
                yield from (part.strip().lower() for part in each.split(","))


def _items(headers: Any) -> list[tuple[str, Any]]:
    return list(headers.items()) if isinstance(headers, Mapping) else []


def fits(model: str, pattern: str) -> bool:
    """Whether a model, or that of a variant, is like a pattern."""
    return fnmatchcase(model, pattern) or fnmatchcase(split_model(model)[0], pattern)
