"""The message that a stream's events add up to."""

from __future__ import annotations

import json
from typing import Any, TypeAlias

from celery_app.errors import NotAMessage

Json: TypeAlias = dict[str, Any]


class Assembly:
    """Takes a stream's events one by one; those that it does not know, tomorrow's API may send.

    Pieces of text are collected in lists: appending to a string is quadratic in the length of an answer.

    Attributes:
        complete: whether ``message_stop`` has come.
    """

    def __init__(self) -> None:
        """Start with nothing."""
        self.complete = False
        self._message: Json = {}
        self._blocks: dict[int, Json] = {}
        self._pieces: dict[tuple[int, str], list[str]] = {}

    def add(self, event: Json) -> None:
        """Take one event.

        Raises:
            NotAMessage: it is none of the Messages API's.
        """
        try:
            self._take(event["type"], event)
        except (LookupError, TypeError, ValueError, AttributeError):
            raise NotAMessage(status=200, content_type="an event without meaning") from None

    def message(self) -> Json:
        """Return the message as ``create_message`` would have returned it; for once, when it is complete.

        Raises:
            NotAMessage: the input of a tool is no JSON, or the events are the end of something else.
        """
        if self._message.get("type") != "message":
            raise NotAMessage(status=200, content_type="events without a message")
        for (index, field), pieces in self._pieces.items():
            block, text = self._blocks[index], "".join(pieces)
            if field == "partial_json":
                block["input"] = _tool_input(text) if text else block.get("input", {})
            else:
                block[field] = (block.get(field) or "") + text
        return {**self._message, "content": [self._blocks[index] for index in sorted(self._blocks)]}

    def _take(self, kind: str, event: Json) -> None:
        if kind == "content_block_delta":
            self._extend_block(event)
        elif kind == "content_block_start":
            self._blocks[event["index"]] = dict(event["content_block"])
        elif kind == "message_start":
            self._message = dict(event["message"])
        elif kind == "message_delta":
            self._finish(event)
        elif kind == "message_stop":
            self.complete = True

    def _extend_block(self, event: Json) -> None:
        index, delta = event["index"], event["delta"]
        field = _PIECES.get(delta["type"])
        if field is not None:
            self._pieces.setdefault((index, field), []).append(delta[field])
        elif delta["type"] == "signature_delta":
            self._blocks[index]["signature"] = delta["signature"]
        elif delta["type"] == "citations_delta":
            block = self._blocks[index]
            block["citations"] = [*(block.get("citations") or []), delta["citation"]]

    def _finish(self, event: Json) -> None:
        """Take the stop reason and the usage, whose numbers are totals."""
        self._message.update(event["delta"])
        usage = {name: value for name, value in (event.get("usage") or {}).items() if value is not None}
        self._message["usage"] = {**(self._message.get("usage") or {}), **usage}


def _tool_input(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        from jiter import from_json  # the SDK's own parser

    try:
        # An answer that was cut off by max_tokens: the SDK, too, takes what there is.
        return from_json(text.encode(), partial_mode=True)
    except ValueError:
        raise NotAMessage(status=200, content_type="a tool's input that is no JSON") from None


#: Kind of a delta -> its field with a piece of the block's text.
_PIECES = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
