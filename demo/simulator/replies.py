"""Reply: the answer to a prompt, as a message and as the events of a stream."""

from __future__ import annotations

import json
from functools import lru_cache
from itertools import count, cycle, islice
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

from demo.simulator.faults import MID_STREAM, STREAM_ERRORS

if TYPE_CHECKING:
    from demo.simulator.caches import PromptUsage
    from demo.simulator.prompts import Prompt

Json = dict[str, Any]

# What an answer says after its echo, one word for each further token. It suits any question, and says what it is.
PROSE = """
In short: begin with the simplest thing that could work, look at what it does, and change one thing at a time. Most of
the time that is enough, and you can stop there. If it is not, measure before you go on: the slow part is seldom the one
that everybody suspects. Write down what you find, so that the next person need not look for it again. This answer is a
simulated one, and its words come at the pace of a real one; with a key of your own a model answers your question.
"""
FILLER = tuple(f" {word}" for word in PROSE.split())
THINKING = {
    "type": "thinking",
    "thinking": "The caller wants to hear what it said.",
    "signature": "c2ltdWxhdGVkLXNpZ25hdHVyZQ==",
}
# A value for types of a tool's JSON schema; all others get the echo.
EXAMPLES: dict[str, Any] = {"integer": 1, "number": 1.5, "boolean": True, "array": [], "object": {}}

_numbers = count(1)


class Events(NamedTuple):
    """What is sent for a reply: before the first token, for each token, after the last."""

    head: bytes
    deltas: list[bytes]
    tail: bytes


class Reply(NamedTuple):
    """An answer, the same for the same prompt but for its ids."""

    envelope: Json  # the message without content, stop reason and output tokens
    thinking: bool  # whether a thinking block comes first
    block: Json  # of the answer itself, still empty
    pieces: tuple[str, ...]  # its text (or the tool's input as JSON), split into tokens
    stop_reason: str

    def whole(self, fault: str | None = None) -> Events:
        """Give the message in one piece; a fault cuts it in half."""
        text = "".join(self.pieces)
        full = {"text": text} if self.block["type"] == "text" else {"input": json.loads(text)}
        content = [*([THINKING] if self.thinking else []), {**self.block, **full}]
        message = {**self._envelope(len(self.pieces)), "content": content, "stop_reason": self.stop_reason}
        body = json.dumps(message).encode()
        if fault == "drop_mid_stream":
            return Events(body[: len(body) // 2], [], b"")
        return Events(b"", [], body[: len(body) // 2] if fault == "broken_json" else body)

    def events(self, fault: str | None = None) -> Events:
        """Give the events of the stream; a fault in the middle of it comes after half of the tokens."""
        index = int(self.thinking)
        start = event("message_start", message=self._envelope(1))
        opening = event("content_block_start", index=index, content_block=self.block)
        head = b"".join([start, *(_thinking() if self.thinking else []), opening, event("ping")])
        kind = ("text_delta", "text") if self.block["type"] == "text" else ("input_json_delta", "partial_json")
        deltas = [_delta(index, *kind, piece) for piece in self.pieces]
        if fault == "broken_json":
            deltas[0] = deltas[0][: len(deltas[0]) // 2] + b"\n\n"
        if fault in MID_STREAM or fault == "reset":
            error = STREAM_ERRORS.get(fault)
            return Events(head, deltas[: -(-len(deltas) // 2)], event("error", error=error) if error else b"")
        delta = {"stop_reason": self.stop_reason, "stop_sequence": None}
        usage = {**self.envelope["usage"], "output_tokens": len(self.pieces)}
        tail = event("content_block_stop", index=index) + event("message_delta", delta=delta, usage=usage)
        return Events(head, deltas, tail + event("message_stop"))

    def _envelope(self, output_tokens: int) -> Json:
        return {**self.envelope, "usage": {**self.envelope["usage"], "output_tokens": output_tokens}}


def reply(prompt: Prompt, usage: PromptUsage, wanted: int, tier: str = "standard") -> Reply:
    """Answer a prompt of some tokens with so many as are wanted, if max_tokens allows them.

    The prompt's beginning is in the answer, so that mixed-up answers are noticed; one that names classes gets one.
    """
    number, tokens = next(_numbers), min(wanted, prompt.max_tokens)
    block: Json = {"type": "text", "text": ""}
    stop_reason = "end_turn"
    if prompt.tool is not None:
        block = {"type": "tool_use", "id": f"toolu_sim{number:021}", "name": prompt.tool["name"], "input": {}}
        text, stop_reason = json.dumps(_example_input(prompt, prompt.tool)), "tool_use"
        size = -(-len(text) // tokens)
        pieces = tuple(text[start : start + size] for start in range(0, len(text), size))
    elif prompt.classes:
        # Of the same text always the same one, as a model would, in whichever process.
        pieces = (prompt.classes[crc32(json.dumps(prompt.params["messages"]).encode()) % len(prompt.classes)],)
    else:
        pieces = (f"You said: {prompt.said}…", *filler(tokens - 1))
        stop_reason = "end_turn" if wanted <= prompt.max_tokens else "max_tokens"
    envelope: Json = {
        "id": f"msg_sim{number:021}",
        "type": "message",
        "role": "assistant",
        "model": prompt.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {**usage.reported(), "service_tier": tier},
    }
    return Reply(envelope, prompt.thinking, block, pieces, stop_reason)


@lru_cache(maxsize=64)
def filler(tokens: int) -> tuple[str, ...]:
    """Give a number of words to follow the echo."""
    return tuple(islice(cycle(FILLER), tokens))


def event(kind: str, **fields: Any) -> bytes:
    """Give one event: its name, and its JSON with the name as `type`."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


# Nearly every event of every stream is the same word in the same place.
@lru_cache(maxsize=1024)
def _delta(index: int, kind: str, field: str, piece: str) -> bytes:
    return event("content_block_delta", index=index, delta={"type": kind, field: piece})


def _thinking() -> list[bytes]:
    """Give the thinking block; it comes at once and its tokens are not counted."""
    empty = {"type": "thinking", "thinking": "", "signature": ""}
    return [
        event("content_block_start", index=0, content_block=empty),
        _delta(0, "thinking_delta", "thinking", THINKING["thinking"]),
        _delta(0, "signature_delta", "signature", THINKING["signature"]),
        event("content_block_stop", index=0),
    ]


def _example_input(prompt: Prompt, tool: Json) -> Json:
    properties: Json = (tool.get("input_schema") or {}).get("properties") or {}
    echo = f"You said: {prompt.said}…"
    return {name: (kind.get("enum") or [EXAMPLES.get(kind.get("type"), echo)])[0] for name, kind in properties.items()}
