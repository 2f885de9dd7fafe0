"""Server-sent events of a reply, in the order of the real API."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from demo.simulator.faults import MID_STREAM, Fault
from demo.simulator.replies import FILLER, SIGNATURE, THOUGHT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from demo.simulator.replies import Reply

_FILLER = frozenset(FILLER)


def event(kind: str, **fields: Any) -> bytes:
    """Give one event: its name, and its JSON with the name as `type`."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


PING = event("ping")

# What ends a stream in its middle.
ERRORS = {
    Fault.STREAM_OVERLOADED: event("error", error={"type": "overloaded_error", "message": "Overloaded"}),
    Fault.STREAM_RATE_LIMITED: event("error", error={"type": "rate_limit_error", "message": "Too many tokens"}),
    Fault.STREAM_API_ERROR: event("error", error={"type": "api_error", "message": "Internal server error"}),
    Fault.STREAM_UNKNOWN_ERROR: event("error", error={"type": "moon_phase_error", "message": "Wrong phase"}),
}

# What comes behind message_stop.
BEHIND = {
    Fault.DONE_BEHIND: b"data: [DONE]\n\n",
    Fault.USAGE_BEHIND: b'data: {"usage": {"prompt_tokens": 3, "completion_tokens": 5}}\n\n',
    Fault.NULL_BEHIND: b"data: null\n\n",
    Fault.RESET_BEHIND: b"",
    Fault.OPEN_BEHIND: b"",
}


class Script(NamedTuple):
    """What is sent for a reply: before the first token, for each token, after the last."""

    head: bytes
    deltas: list[bytes]
    tail: bytes


def script(reply: Reply, fault: Fault | None = None) -> Script:
    """Give the events of a reply; a fault in the middle of the stream comes after half of the tokens."""
    head, deltas = _head(reply), list(_deltas(reply))
    if fault is Fault.BROKEN_JSON:
        deltas[0] = deltas[0][: len(deltas[0]) // 2] + b"\n\n"
    if fault in {*MID_STREAM, Fault.RESET}:
        half = deltas[: -(-len(deltas) // 2)]
        return Script(head, half, ERRORS.get(fault, b""))
    return Script(head, deltas, _tail(reply))


def _head(reply: Reply) -> bytes:
    start = event("message_start", message=reply.envelope(1))
    return b"".join([start, *_thinking(reply), event("content_block_start", **_opening(reply)), PING])


def _deltas(reply: Reply) -> Iterator[bytes]:
    index = _index(reply)
    for piece in reply.pieces:
        if reply.tool is not None:
            yield _input_delta(index, piece)
        elif piece in _FILLER:
            yield _filler_delta(index, piece)
        else:
            yield _text_delta(index, piece)


def _tail(reply: Reply) -> bytes:
    stop = event("content_block_stop", index=_index(reply))
    usage = {**reply.usage._asdict(), "output_tokens": len(reply.pieces)}
    why = event("message_delta", delta={"stop_reason": reply.stop_reason, "stop_sequence": None}, usage=usage)
    return stop + why + event("message_stop")


def _index(reply: Reply) -> int:
    return 1 if reply.thinking else 0


def _thinking(reply: Reply) -> Iterator[bytes]:
    """Give the thinking block; it comes at once and its tokens are not counted."""
    if reply.thinking:
        block = {"type": "thinking", "thinking": "", "signature": ""}
        yield event("content_block_start", index=0, content_block=block)
        yield event("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": THOUGHT})
        yield event("content_block_delta", index=0, delta={"type": "signature_delta", "signature": SIGNATURE})
        yield event("content_block_stop", index=0)


def _opening(reply: Reply) -> dict[str, Any]:
    block: dict[str, Any] = {"type": "text", "text": ""}
    if reply.tool is not None:
        block = {"type": "tool_use", "id": reply.tool_id, "name": reply.tool, "input": {}}
    return {"index": _index(reply), "content_block": block}


def _input_delta(index: int, piece: str) -> bytes:
    return event("content_block_delta", index=index, delta={"type": "input_json_delta", "partial_json": piece})


def _text_delta(index: int, piece: str) -> bytes:
    return event("content_block_delta", index=index, delta={"type": "text_delta", "text": piece})


# Nearly every event of every stream is one of these.
_filler_delta = lru_cache(maxsize=2 * len(FILLER))(_text_delta)
