"""The message that a stream's events add up to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from celery_app.errors import NotAMessage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Json: TypeAlias = dict[str, Any]

#: Kind of a delta -> its field with a piece of the block's text, and the kind of the block.
_PIECES = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("thinking", "thinking"),
    "input_json_delta": ("partial_json", "tool_use"),
}

#: Kind of a delta that is no piece of text -> the kind of its block.
_OTHERS = {"signature_delta": "thinking", "citations_delta": "text"}

#: The kinds of events that a message is made of.
KINDS = frozenset(
    {
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    }
)

#: Fields of a message that nobody expects to be missing, or null.
_NEEDED = frozenset({"type", "id", "role", "model", "content", "usage"})

#: Fields of a message that its end does not change, whatever it may say.
_FIXED = _NEEDED


class Assembly:
    """Takes a stream's events one by one; those that it does not know, tomorrow's API may send.

    Gateways leave out what the API always says. What is missing is made up for, so that the message is whole, and the
    stream's readers get what they are written for: a message's start before its blocks, a block's start before its
    text, an index.

    Pieces of text are collected in lists: appending to a string is quadratic in the length of an answer.

    Attributes:
        begun: whether there is anything of a message.
        complete: whether ``message_stop`` has come.
    """

    def __init__(self, model: str = "") -> None:
        """Start with nothing; `model` is what a message without a start was asked from."""
        self.begun = self.complete = False
        self._message: Json = _envelope(model)
        self._blocks: dict[int, _Block] = {}
        self._last = -1
        self._takers: dict[str, Callable[[Json], list[Json]]] = {
            "message_start": self._start,
            "content_block_start": self._start_block,
            "content_block_delta": self._extend_block,
            "content_block_stop": self._stop_block,
            "message_delta": self._finish,
            "message_stop": self._stop,
        }

    def add(self, event: Json) -> list[Json]:
        """Take one event.

        Returns:
            What the stream's readers are to have of it: the event itself where it is as the API sends it; besides, or
            instead, what it lacks; nothing, if it says nothing.

        Raises:
            NotAMessage: it is none of the Messages API's.
        """
        kind = event.get("type")
        taker = self._takers.get(kind) if isinstance(kind, str) else None
        try:
            return [event] if taker is None else taker(event)
        except RecursionError:
            raise _nonsense("one that is nested too deep") from None

    def end(self, *, said: bool) -> list[Json]:
        """Complete the message of a stream that has ended in good order, if nothing but ``message_stop`` is missing.

        Args:
            said: whether the stream has said in another way that this is its end.

        Returns:
            What its readers lack.
        """
        if self.complete or not self.begun or not (said or self._message.get("stop_reason")):
            return []
        return self._stop({"type": "message_stop"})

    def message(self) -> Json:
        """Return the message as ``create_message`` would have returned it; for once, when it is complete.

        Raises:
            NotAMessage: the input of a tool is no JSON, or the events are the end of something else.
        """
        if not self.begun:
            raise NotAMessage(status=200, content_type="events without a message")
        blocks = [self._blocks[index].whole() for index in sorted(self._blocks)]
        return {**self._message, "content": blocks or self._message["content"]}

    def _start(self, event: Json) -> list[Json]:
        message = _fields(event.get("message"))
        if message.get("type") not in (None, "message"):
            raise _nonsense("a start of something else")
        if self.begun:
            if self._blocks and message.get("id") != self._message["id"]:
                raise _nonsense("two messages in one stream")
            return []  # said twice
        said = {name: value for name, value in message.items() if value is not None}
        if not isinstance(said.get("content", []), list):
            raise _nonsense("content that is no list")
        made_up = {name: said.get(name, self._message[name]) for name in _NEEDED}
        self._message, self.begun = {**self._message, **message, **made_up}, True
        if said.keys() >= _NEEDED:
            return [event]
        return [{**event, "message": {**self._message, "content": list(self._message["content"])}}]

    def _start_block(self, event: Json) -> list[Json]:
        block, index = event.get("content_block"), _index(event)
        before = self._begin()
        if block is None:
            return before  # its first delta says what it is
        fields = _without_nulls(_fields(block))
        if fields != block:
            event = {**event, "content_block": dict(fields)}
        known = self._blocks.get(-1 if index is None else index)
        if known is not None and known.is_new(fields):
            return before  # said twice
        if index is None or known is not None:
            index = max(self._blocks, default=-1) + 1  # a gateway that numbers all blocks alike
        self._open(index, fields)
        return [*before, _numbered(event, index)]

    def _extend_block(self, event: Json) -> list[Json]:
        if event.get("delta") is None:
            return []
        delta = _fields(event["delta"])
        kind = delta.get("type")
        if not isinstance(kind, str):
            raise _nonsense("a delta without a type")
        if kind in _PIECES and delta.get(_PIECES[kind][0]) is None:
            return []
        before, index = self._block_for(event, kind)
        self._blocks[index].extend(kind, delta)
        return [*before, _numbered(event, index)]

    def _stop_block(self, event: Json) -> list[Json]:
        index = self._index_of(event)
        return [_numbered(event, index)] if index in self._blocks else []

    def _block_for(self, event: Json, kind: str) -> tuple[list[Json], int]:
        """Return the index of a delta's block, and what the readers lack before the delta."""
        index, before = self._index_of(event), self._begin()
        if index not in self._blocks:
            block = _opening(kind)
            self._open(index, block)
            before.append({"type": "content_block_start", "index": index, "content_block": dict(block)})
        return before, index

    def _index_of(self, event: Json) -> int:
        """Return an event's index; where it does not say one, that of the block that was talked of last."""
        index = _index(event)
        self._last = max(self._last, 0) if index is None else index
        return self._last

    def _open(self, index: int, fields: Json) -> None:
        self._blocks[index], self._last = _Block(fields), index

    def _begin(self) -> list[Json]:
        """Make up for a start that was never sent."""
        if self.begun:
            return []
        self.begun = True
        return [{"type": "message_start", "message": {**self._message, "content": []}}]

    def _finish(self, event: Json) -> list[Json]:
        """Take the stop reason and the usage, whose numbers are totals."""
        delta, usage, before = event.get("delta"), event.get("usage"), self._begin()
        for name, value in _fields({} if delta is None else delta).items():
            if name not in _FIXED and (value is not None or self._message.get(name) is None):
                self._message[name] = value
        if isinstance(usage, Mapping):
            known = self._message.get("usage")
            said = {name: value for name, value in usage.items() if value is not None}
            self._message["usage"] = {**(known if isinstance(known, Mapping) else {}), **said}
        return [
            *before,
            event if delta is not None else {**event, "delta": {"stop_reason": None, "stop_sequence": None}},
        ]

    def _stop(self, event: Json) -> list[Json]:
        if not self.begun:
            raise _nonsense("the end of something else")
        self.complete = True
        return [event]


class _Block:
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
            self._fields["type"] = _opening(kind)["type"]
        if kind in _PIECES:
            field = _PIECES[kind][0]
            if not isinstance(delta[field], str):
                raise _nonsense("a piece of text that is none")
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


def events_of(message: Json) -> Iterator[Json]:
    """Give the events of a message that came as a whole, for readers who expect a stream."""
    content = message.get("content")
    blocks = [block for block in content if isinstance(block, Mapping)] if isinstance(content, list) else []
    yield {"type": "message_start", "message": {**message, "content": [], "stop_reason": None, "stop_sequence": None}}
    for index, block in enumerate(blocks):
        fields, deltas = _opened(dict(block))
        yield {"type": "content_block_start", "index": index, "content_block": fields}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    delta = {"stop_reason": message.get("stop_reason"), "stop_sequence": message.get("stop_sequence")}
    yield {"type": "message_delta", "delta": delta, "usage": message.get("usage") or {}}
    yield {"type": "message_stop"}


def _opened(block: Json) -> tuple[Json, list[Json]]:
    """Return a block as it begins in a stream, and the deltas that follow; of unknown ones the beginning is all."""
    kind = block.get("type")
    if kind == "text" and isinstance(block.get("text"), str):
        return {**block, "text": ""}, [{"type": "text_delta", "text": block["text"]}]
    if kind == "tool_use" and isinstance(block.get("input"), Mapping):
        text = json.dumps(block["input"])
        return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": text}]
    if kind == "thinking" and isinstance(block.get("thinking"), str):
        signature = {"type": "signature_delta", "signature": block.get("signature")}
        thought = {"type": "thinking_delta", "thinking": block["thinking"]}
        return {**block, "thinking": "", "signature": ""}, [thought, *([signature] if signature["signature"] else [])]
    return block, []


def _envelope(model: str) -> Json:
    """Return what is known of a message whose start does not say it; its usage is not known."""
    return {
        "id": "",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {},
    }


def _opening(kind: str) -> Json:
    """Return a block as it would have begun, by the kind of its first delta."""
    if kind in _PIECES:
        field, block = _PIECES[kind]
        return {"type": block, **({"input": {}} if field == "partial_json" else {field: ""})}
    return {"type": _OTHERS.get(kind, kind.removesuffix("_delta"))}


def _without_nulls(block: Json) -> Json:
    """Return a block that has text, or an input, where readers add to it."""
    for field, kind in _PIECES.values():
        name, nothing = ("input", {}) if field == "partial_json" else (field, "")
        if block.get("type") == kind and name in block and block[name] is None:
            return {**block, name: nothing}
    return block


def _numbered(event: Json, index: int) -> Json:
    said = event.get("index")
    return event if type(said) is int and said == index else {**event, "index": index}


def _index(event: Json) -> int | None:
    """Return an event's index as a number, None where it says none."""
    index = event.get("index")
    if isinstance(index, str) and index.isascii() and index.isdigit() and len(index) <= _MOST_DIGITS:
        return int(index)
    if isinstance(index, float) and index.is_integer():
        index = int(index)
    return index if type(index) is int and index >= 0 else None


def _fields(value: Any) -> Json:
    if type(value) is dict:
        return value
    if value is None:
        return {}
    raise _nonsense("a part that is no object")


def _nonsense(what: str) -> NotAMessage:
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


#: Digits of an index: a message has some blocks.
_MOST_DIGITS = 6
