"""What comes as the answer of a call: a stream's events or a whole body; a message or an error, of whatever form."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NoReturn

from celery_app.errors import NotAMessage
from tasks.assembly import KINDS, Assembly
from tasks.failures import StreamCutShort
from tasks.redaction import content_type_of
from tasks.refusals import STATUS_OF_TYPE
from tasks.sse import EventParser

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tasks.blocks import Json
    from tasks.sse import ServerEvent

#: The content type of a stream.
STREAM_TYPE = "text/event-stream"

#: How OpenAI's streams end, and those of some gateways in front of Anthropic's API.
END_MARK = b"[DONE]"

#: How the Messages API writes an event's type; a reader may put it on a line of its own.
_TYPE = re.compile(r"[a-z][a-z0-9_.-]{0,63}")

#: What no API but ours says: the answer begins anew.
_OURS = "restart"

#: Bytes before the first event that are kept, in case they are no stream but a message or an error.
_MOST_BODY = 16_000_000

#: How the lines of a stream begin.
_STREAM_BEGINS = (b"event:", b"data:", b"id:", b"retry:", b":")


class Incoming:
    """One streamed answer while it arrives."""

    def __init__(self, response: Any, model: str) -> None:
        """Begin to read.

        Args:
            response: the HTTP client's, for errors.
            model: that was asked.
        """
        self._response, self._model = response, model
        self._parser, self._assembly = EventParser(), Assembly(model)
        self._body: bytearray | None = bytearray()
        self._done = False

    @property
    def complete(self) -> bool:
        """Whether ``message_stop`` has come, or its end been made up for."""
        return self._assembly.complete

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield what readers are to have of the events that a chunk completes, each as a line of JSON.

        Raises:
            NotAMessage: they are none of the Messages API's.
            anthropic.APIStatusError: the API ended the stream with an error.
        """
        if self._body is not None and len(self._body) < _MOST_BODY:
            self._body += chunk
        for event in self._parser.feed(chunk):
            yield from self._take(event)
            if self.complete:
                return

    def end(self) -> Iterator[bytes]:
        """Yield what is left for readers of a stream that has ended in good order.

        Raises:
            StreamCutShort: the message is not complete.
            NotAMessage: there is none at all.
            anthropic.APIStatusError: it was an error.
        """
        for last in self._parser.finish():
            yield from self._take(last)
        for event in self._assembly.end(said=self._done):
            yield _line(event)
        if not self.complete and self._assembly.begun:
            raise StreamCutShort("the stream ended before its message")

    def message(self) -> Json:
        """Return the message, when it is complete.

        Raises:
            NotAMessage: there is none.
        """
        return self._assembly.message()

    def body(self) -> bytes:
        """Return all that has come, if there was no event in it."""
        return b"" if self._body is None else bytes(self._body)

    def _take(self, server_event: ServerEvent) -> Iterator[bytes]:
        if server_event.data == END_MARK:
            self._done, self._body = True, None
            return
        event, line = _read(server_event)
        if event is None:
            return
        self._body = None
        raise_error(self._response, event)
        kind = event["type"]
        if kind in KINDS or (_TYPE.fullmatch(kind) and kind != _OURS):
            for each in self._assembly.add(event):
                yield line if each is event else _line(each)


def message_in(response: Any, body: bytes, model: str) -> Json:
    """Return the message in a body that came as a whole with status 200.

    Args:
        response: the HTTP client's.
        body: JSON, or, from a gateway that always streams, a stream's events.
        model: that was asked.

    Raises:
        NotAMessage: for a login page, an empty body, a half JSON: whatever a gateway may send with status 200.
        StreamCutShort: for half a stream.
        anthropic.APIStatusError: for an error.
    """
    if body.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(_STREAM_BEGINS):
        incoming = Incoming(response, model)
        list(incoming.feed(body))
        if not incoming.complete:
            list(incoming.end())
        return incoming.message()
    try:
        parsed, _ = _parsed(body)
    except (ValueError, RecursionError):
        parsed = None
    if isinstance(parsed, dict):
        if _is_message(parsed):
            return {**parsed, "type": "message", "content": _blocks(parsed.get("content"))}
        raise_error(response, parsed, whole=True)
    raise NotAMessage(status=response.status_code, content_type=content_type_of(response.headers))


def raise_error(response: Any, body: Json, *, whole: bool = False) -> None:
    """Raise what the SDK raises for an error, if this is one: of the Messages API's form, or of any other.

    Args:
        response: the HTTP client's.
        body: that came with status 200.
        whole: whether it is all that came. An event that is of a type may have a part called ``error``.

    Raises:
        anthropic.APIStatusError: it is.
    """
    kind = body.get("type")
    if kind == "error" or (isinstance(kind, str) and kind in STATUS_OF_TYPE):
        _refuse(response, body)
    if body.get("error") and (whole or not isinstance(kind, str)):
        _refuse(response, body)


def _refuse(response: Any, body: Json) -> NoReturn:
    import anthropic

    raise anthropic.APIStatusError("an error with status 200", response=response, body=body)


def _read(server_event: ServerEvent) -> tuple[Json | None, bytes]:
    """Return an event of the Messages API and its line; None for one of another API's, which gateways add.

    Raises:
        NotAMessage: it is no JSON.
    """
    name, data = server_event
    if not data:
        # Only of these two the name says all that there is to say.
        return ({"type": name}, _line({"type": name})) if name in {"message_stop", "error"} else (None, b"")
    try:
        event, is_json = _parsed(data)
    except (ValueError, RecursionError):
        if name == "error":
            return {"type": "error", "error": None}, b""
        raise NotAMessage(status=200, content_type="an event that is no JSON") from None
    if not isinstance(event, dict):
        return ({"type": "error", "error": None} if name == "error" else None), b""
    if isinstance(event.get("type"), str):
        return event, data if is_json else _line(event)
    if event.get("error") or name == "error":
        return {**event, "type": "error"}, b""
    if _TYPE.fullmatch(name) and name != "message":
        event = {**event, "type": name}
        return event, _line(event)
    return None, b""


def _parsed(data: bytes) -> tuple[Any, bool]:
    """Return what is in a JSON, and whether it is one for everybody else, too.

    Raises:
        ValueError: it is none.
        RecursionError: it is nested too deep.
    """
    if b"NaN" in data or b"Infinity" in data:  # JSON does not know them, Python's parser takes them all the same
        met: list[str] = []
        return json.loads(data, parse_constant=met.append), not met
    return json.loads(data), True


def _is_message(body: Json) -> bool:
    kind, content = body.get("type"), body.get("content")
    if kind == "message":
        return content is None or isinstance(content, list | str)
    return kind is None and body.get("role") == "assistant" and isinstance(content, list) and not body.get("error")


def _blocks(content: Any) -> list[Any]:
    """Return a message's content as its readers go through it."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return content or []


def _line(event: Mapping[str, Any]) -> bytes:
    return json.dumps(event).encode()
