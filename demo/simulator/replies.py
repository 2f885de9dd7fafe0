"""Reply: the answer to a prompt."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from itertools import count, cycle, islice
from typing import TYPE_CHECKING, Any
from zlib import crc32

if TYPE_CHECKING:
    from demo.simulator.prompts import Prompt
    from demo.simulator.usage import Usage

Json = dict[str, Any]

# What an answer says after its echo, one word for each further token. It suits any question, and says what it is.
PROSE = """
In short: begin with the simplest thing that could work, look at what it does, and change one thing at a time. Most of
the time that is enough, and you can stop there. If it is not, measure before you go on: the slow part is seldom the one
that everybody suspects. Write down what you find, so that the next person need not look for it again. This answer is a
simulated one, and its words come at the pace of a real one; with a key of your own a model answers your question.
"""
FILLER = tuple(f" {word}" for word in PROSE.split())
THOUGHT = "The caller wants to hear what it said."
SIGNATURE = "c2ltdWxhdGVkLXNpZ25hdHVyZQ=="
# A value for each type of a tool's JSON schema; strings get the echo instead.
EXAMPLES: dict[str, Any] = {"integer": 1, "number": 1.5, "boolean": True, "array": [], "object": {}, "null": None}

_numbers = count(1)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, the same for the same prompt but for its ids.

    Attributes:
        message_id: `msg_…`.
        model: the model that was asked.
        usage: tokens of the prompt.
        thinking: whether a thinking block comes first.
        tool: name of the tool that is used, None for text.
        pieces: the text (or the tool's input as JSON), split into tokens.
        stop_reason: end_turn, max_tokens or tool_use.
    """

    message_id: str
    model: str
    usage: Usage
    thinking: bool
    tool: str | None
    pieces: tuple[str, ...]
    stop_reason: str

    @property
    def tool_id(self) -> str:
        """The id of the tool's use."""
        return self.message_id.replace("msg_", "toolu_")

    def message(self) -> Json:
        """Give the whole message."""
        return {**self.envelope(len(self.pieces)), "content": self._content(), "stop_reason": self.stop_reason}

    def envelope(self, output_tokens: int) -> Json:
        """Give the message without content and stop reason, as a stream's message_start has it."""
        return {
            "id": self.message_id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {**self.usage._asdict(), "output_tokens": output_tokens, "service_tier": "standard"},
        }

    def _content(self) -> list[Json]:
        text = "".join(self.pieces)
        blocks: list[Json] = []
        if self.thinking:
            blocks.append({"type": "thinking", "thinking": THOUGHT, "signature": SIGNATURE})
        if self.tool is None:
            blocks.append({"type": "text", "text": text})
        else:
            blocks.append({"type": "tool_use", "id": self.tool_id, "name": self.tool, "input": json.loads(text)})
        return blocks


def reply(prompt: Prompt, usage: Usage, wanted: int) -> Reply:
    """Answer a prompt.

    Args:
        prompt: what was asked; its beginning is in the answer, so that mixed-up answers are noticed. One that names
            classes is answered with one of them.
        usage: tokens of the prompt.
        wanted: output tokens, if max_tokens allows them.
    """
    message_id = f"msg_sim{next(_numbers):021}"
    tokens = min(wanted, prompt.max_tokens)
    if prompt.tool is not None:
        pieces = _split(json.dumps(_example_input(prompt)), tokens)
        return Reply(message_id, prompt.model, usage, prompt.thinking, prompt.tool["name"], pieces, "tool_use")
    if prompt.classes:
        # Of the same text always the same one, as a model would, in whichever process.
        chosen = prompt.classes[crc32(json.dumps(prompt.params["messages"]).encode()) % len(prompt.classes)]
        return Reply(message_id, prompt.model, usage, prompt.thinking, None, (chosen,), "end_turn")
    pieces = (f"You said: {prompt.said}…", *filler(tokens - 1))
    stop_reason = "end_turn" if wanted <= prompt.max_tokens else "max_tokens"
    return Reply(message_id, prompt.model, usage, prompt.thinking, None, pieces, stop_reason)


@lru_cache(maxsize=64)
def filler(tokens: int) -> tuple[str, ...]:
    """Give a number of words to follow the echo."""
    return tuple(islice(cycle(FILLER), tokens))


def _split(text: str, tokens: int) -> tuple[str, ...]:
    """Split a text into at most so many pieces of the same length."""
    size = -(-len(text) // tokens)
    return tuple(text[start : start + size] for start in range(0, len(text), size))


def _example_input(prompt: Prompt) -> Json:
    schema = (prompt.tool or {}).get("input_schema")
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict):
        return {}
    return {name: _example(kind, prompt.said) for name, kind in properties.items()}


def _example(schema: object, said: str) -> Any:
    match schema:
        case {"enum": [first, *_]}:
            return first
        case {"type": str(kind)} if kind in EXAMPLES:
            return EXAMPLES[kind]
    return f"You said: {said}…"
