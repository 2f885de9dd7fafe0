"""One block of a message's content, while its deltas come."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeAlias

from celery_app.errors import NotAMessage

Json: TypeAlias = dict[str, Any]

#: Kind of a delta -> its field with a piece of the block's text, and the kind of the block.
PIECES = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("thinking", "thinking"),
    "input_json_delta": ("partial_json", "tool_use"),
}

#: Kind of a delta that is no piece of text -> the kind of its block.
_OTHERS = {"signature_delta": "thinking", "citations_delta": "text"}


class Block:
    """One block of a message's content."""

    def __init__(self, fields: Json) -> None:
        self._fields, self._start = dict(fields), fields
        self._pieces: dict[str, list[str]] = {}

    def is_new(self, fields: Json) -> bool:
        """Whether nothing has been added to a block that began with these fields."""
        return not self._pieces and self._fields == self._start == fields

    def extend(self, kind: str, delta: Json) -> None:
        """Add a delta.

        Raises:
            NotAMessage: its piece of text is none.
        """
        if self._fields.get("type") is None:
            self._fields["type"] = opening(kind)["type"]
        if kind in PIECES:
            field = PIECES[kind][0]
            if not isinstance(delta[field], str):
                raise nonsense("a piece of text that is none")
            self._pieces.setdefault(field, []).append(delta[field])
        elif kind == "signature_delta":
            self._fields["signature"] = delta.get("signature")
        elif kind == "citations_delta":
            known = self._fields.get("citations")
            self._fields["citations"] = [*(known if isinstance(known, list) else []), delta.get("citation")]
        else:
            self._merge(delta)

    def _merge(self, delta: Json) -> None:
        """Keep the data of a delta that we do not know: text and lists grow, anything else is said anew."""
        for name, value in delta.items():
            known = self._fields.get(name)
            if name == "type" or value is None:
                continue
            if isinstance(value, str) and (known is None or isinstance(known, str)):
                self._pieces.setdefault(name, []).append(value)
            elif isinstance(value, list) and isinstance(known, list):
                self._fields[name] = [*known, *value]
            elif isinstance(value, Mapping) and isinstance(known, Mapping):
                self._fields[name] = {**known, **value}
            else:
                self._fields[name] = value

    def whole(self) -> Json:
        """Return the block with all its text."""
        for field, pieces in self._pieces.items():
            text, known = "".join(pieces), self._fields.get(field)
            if field == "partial_json":
                self._fields["input"] = _tool_input(text) if text else self._fields.get("input", {})
            else:
                self._fields[field] = known + text if isinstance(known, str) else text
        return self._fields


def opening(kind: str) -> Json:
    """Return a block as it would have begun, by the kind of its first delta."""
    if kind in PIECES:
        field, block = PIECES[kind]
        return {"type": block, **({"input": {}} if field == "partial_json" else {field: ""})}
    return {"type": _OTHERS.get(kind, kind.removesuffix("_delta"))}


def without_nulls(block: Json) -> Json:
    """Return a block that has text, or an input, where readers add to it."""
    for field, kind in PIECES.values():
        name, nothing = ("input", {}) if field == "partial_json" else (field, "")
        if block.get("type") == kind and name in block and block[name] is None:
            return {**block, name: nothing}
    return block


def nonsense(what: str) -> NotAMessage:
    """Return the error of an event that means nothing."""
    return NotAMessage(status=200, content_type=f"an event without meaning: {what}")


def _tool_input(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        from jiter import from_json  # the SDK's own parser

    try:
        # An answer that was cut off by max_tokens: the SDK, too, takes what there is.
        return from_json(text.encode(errors="replace"), partial_mode=True)
    except ValueError:
        raise NotAMessage(status=200, content_type="a tool's input that is no JSON") from None
