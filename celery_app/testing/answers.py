"""What a test has the API answer, as messages and as the events of a stream."""

from __future__ import annotations

import itertools
import json
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

Params: TypeAlias = Mapping[str, Any]
Message: TypeAlias = dict[str, Any]

#: A text; a message, or some of its fields; an error; or what makes one of these of a call's parameters.
Answer: TypeAlias = str | Mapping[str, Any] | Exception | Callable[[Params], Any]

#: What a call is answered that a test has not thought of.
DEFAULT = "An answer from the tests."

#: Characters of a prompt that make a token, about.
_CHARACTERS_PER_TOKEN = 4

#: A piece of a text as it is streamed: a word with what stands around it.
_PIECE = re.compile(r"\s*\S+\s*")


class Answers:
    """Gives one call after the other its answer; any thread may ask."""

    def __init__(self) -> None:
        self._answers: deque[Answer] = deque([DEFAULT])
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def set(self, answers: tuple[Answer, ...]) -> None:
        """Take answers for the calls to come, in order; the last one stays.

        Raises:
            TypeError: one of them is no answer.
        """
        for answer in answers:
            if not (isinstance(answer, str | Mapping | Exception) or callable(answer) or hasattr(answer, "model_dump")):
                raise TypeError(f"an answer is a text, a message, an error or a function, not {type(answer).__name__}")
        with self._lock:
            self._answers = deque(answers or (DEFAULT,))

    def message(self, params: Params) -> Message:
        """Return the message that answers a call.

        Raises:
            Exception: the test's, if that is the answer.
        """
        with self._lock:
            answer: Any = self._answers.popleft() if len(self._answers) > 1 else self._answers[0]
        if callable(answer) and not hasattr(answer, "model_dump"):
            answer = answer(params)
        if isinstance(answer, Exception):
            raise answer
        if hasattr(answer, "model_dump"):
            answer = answer.model_dump(mode="json")
        return _message(answer, params, next(self._numbers))


def _message(answer: str | Mapping[str, Any], params: Params, number: int) -> Message:
    fields = {"content": [{"type": "text", "text": answer}]} if isinstance(answer, str) else dict(answer)
    content = fields.get("content")
    if isinstance(content, str):
        fields["content"] = [{"type": "text", "text": content}]
    prompt = len(json.dumps(params.get("messages"))) // _CHARACTERS_PER_TOKEN
    produced = len(json.dumps(fields.get("content"))) // _CHARACTERS_PER_TOKEN
    return {
        "id": f"msg_test_{number}",
        "type": "message",
        "role": "assistant",
        "model": params.get("model"),
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": prompt, "output_tokens": produced},
        **fields,
    }


def events_of(message: Message) -> Iterator[dict[str, Any]]:
    """Yield the events in which the Messages API streams a message."""
    usage = message["usage"]
    begun = {**message, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    yield {"type": "message_start", "message": begun}
    for index, block in enumerate(message["content"]):
        opening, deltas = _opened(block)
        yield {"type": "content_block_start", "index": index, "content_block": opening}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    delta = {"stop_reason": message["stop_reason"], "stop_sequence": message["stop_sequence"]}
    yield {"type": "message_delta", "delta": delta, "usage": {"output_tokens": usage.get("output_tokens", 0)}}
    yield {"type": "message_stop"}


def _opened(block: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a block as it begins, and what is added to it."""
    match block.get("type"):
        case "text":
            pieces = _PIECE.findall(block["text"]) or [block["text"]]
            return {**block, "text": ""}, [{"type": "text_delta", "text": piece} for piece in pieces]
        case "thinking":
            thoughts = [{"type": "thinking_delta", "thinking": piece} for piece in _PIECE.findall(block["thinking"])]
            signed = {"type": "signature_delta", "signature": block.get("signature", "")}
            return {**block, "thinking": "", "signature": ""}, [*thoughts, signed]
        case "tool_use" | "server_tool_use":
            text = json.dumps(block.get("input", {}))
            half = len(text) // 2
            pieces = [text[:half], text[half:]]
            return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
    return dict(block), []
