"""The message that a stream's events add up to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from celery_app.errors import NotAMessage
from tasks.blocks import PIECES, Block, Json, nonsense, opening, without_nulls

if TYPE_CHECKING:
    from collections.abc import Callable

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
        self._blocks: dict[int, Block] = {}
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
            raise nonsense("one that is nested too deep") from None

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
            raise nonsense("a start of something else")
        if self.begun:
            if self._blocks and message.get("id") != self._message["id"]:
                raise nonsense("two messages in one stream")
            return []  # said twice
        said = {name: value for name, value in message.items() if value is not None}
        if not isinstance(said.get("content", []), list):
            raise nonsense("content that is no list")
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
        fields = without_nulls(_fields(block))
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
            raise nonsense("a delta without a type")
        if kind in PIECES and delta.get(PIECES[kind][0]) is None:
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
            block = opening(kind)
            self._open(index, block)
            before.append({"type": "content_block_start", "index": index, "content_block": dict(block)})
        return before, index

    def _index_of(self, event: Json) -> int:
        """Return an event's index; where it does not say one, that of the block that was talked of last."""
        index = _index(event)
        self._last = max(self._last, 0) if index is None else index
        return self._last

    def _open(self, index: int, fields: Json) -> None:
        self._blocks[index], self._last = Block(fields), index

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
            raise nonsense("the end of something else")
        self.complete = True
        return [event]


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
    raise nonsense("a part that is no object")


#: Digits of an index: a message has some blocks.
_MOST_DIGITS = 6
