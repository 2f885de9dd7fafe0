"""The body of a job's message: its arguments, and what Celery wants done around them (callbacks, chord, chain)."""

from __future__ import annotations

import base64
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

from kombu import compression
from kombu.exceptions import ContentDisallowed, DecodeError
from kombu.serialization import loads
from kombu.utils.json import dumps

if TYPE_CHECKING:
    from collections.abc import Mapping

#: What lanes take.
_JSON = frozenset({"application/json"})

#: What bodies raise that are none, whatever they are compressed with.
_BROKEN = (ContentDisallowed, DecodeError, LookupError, TypeError, AttributeError, OSError, EOFError, zlib.error)


class Body(NamedTuple):
    """A body of Celery's second protocol.

    Attributes:
        args: positional arguments.
        kwargs: keyword arguments.
        embed: ``callbacks``, ``errbacks``, ``chain``, ``chord``.
    """

    args: list[Any]
    kwargs: dict[str, Any]
    embed: dict[str, Any]


def read_body(message: Mapping[str, Any]) -> Body:
    """Return the body of a message of kombu's.

    Raises:
        ValueError: nobody can read it.
    """
    try:
        body = message["body"]
        if message["properties"].get("body_encoding") == "base64":
            body = base64.b64decode(body)
        compressed = message["headers"].get("compression")
        if compressed:
            body = compression.decompress(body, compressed)
        parts = loads(body, message["content-type"], message["content-encoding"], accept=_JSON)
    except _BROKEN as exc:
        raise ValueError(type(exc).__name__) from None
    match parts:
        case [list(args), dict(kwargs), embed]:
            return Body(args, kwargs, embed if isinstance(embed, dict) else {})
    raise ValueError("no body of Celery's second protocol")


def with_body(message: Mapping[str, Any], body: Body) -> dict[str, Any]:
    """Return a message that could be read, with another body."""
    encoded = dumps(body).encode()
    compressed = message["headers"].get("compression")
    if compressed:
        encoded, _ = compression.compress(encoded, compressed)
    if message["properties"].get("body_encoding") == "base64":
        return {**message, "body": base64.b64encode(encoded).decode()}
    return {**message, "body": encoded.decode()}
