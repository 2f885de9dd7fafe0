"""An answer with status 200 is what it is: a message, the API's refusal, or one failure that passes."""

import json
from typing import Any

import anthropic
import httpx2
import pytest
from hypothesis import given, strategies as st

from celery_app.errors import ApiError, ApiUnreachable, LanesError, NotAMessage
from tasks.failure import Failure
from tasks.failures import StreamCutShort, failure_of
from tasks.incoming import Incoming, message_in

Json = dict[str, Any]

PROMPT = "the patient's name is Rumpelstiltskin"

MESSAGE = {
    "id": "i",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [{"type": "text", "text": "Hello"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 3, "output_tokens": 1},
}


def answer(content_type: str = "application/json", status: int = 200) -> httpx2.Response:
    """Return an answer whose body comes by itself."""
    body = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": PROMPT}]}
    request = httpx2.Request("POST", "http://api/v1/messages", json=body)
    return httpx2.Response(status, headers={"content-type": content_type} if content_type else {}, request=request)


def failure(body: Any, content_type: str = "application/json") -> Failure:
    """Return what a body means that is no message."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises((NotAMessage, StreamCutShort, anthropic.APIStatusError)) as caught:
        message_in(answer(content_type), text, "m")
    judged = failure_of(caught.value, 1.0)
    assert judged is not None
    return judged


REFUSALS: list[tuple[Any, int, str]] = [
    ({"type": "error", "error": {"type": "invalid_request_error", "message": "no"}}, 400, "fatal"),
    ({"type": "error", "error": {"type": "authentication_error"}}, 401, "fatal"),
    ({"error": {"type": "not_found_error", "message": "no"}}, 404, "fatal"),
    ({"type": "error", "error": "permission_error"}, 403, "fatal"),
    ({"type": "invalid_request_error", "message": "no"}, 400, "fatal"),
    ({"error": {"message": "no", "code": 413}}, 413, "fatal"),
    ({"error": {"message": "no", "code": "422"}}, 422, "fatal"),
    ({"error": {"message": "no", "type": "server_error", "code": "model_down"}}, 500, "retry"),
    ({"error": {"message": "no"}, "status": 503}, 503, "retry"),
    ({"error": {"code": 429}}, 429, "limited"),
    ({"type": "error", "error": {"type": "rate_limit_error", "message": "slower"}}, 429, "limited"),
    ({"type": "error", "error": {"type": "overloaded_error", "message": "later"}}, 529, "retry"),
    ({"type": "error", "error": {"type": ["?"], "message": 5}}, 500, "retry"),
    ({"type": "error", "error": PROMPT}, 500, "retry"),
    ({"type": "error", "error": None}, 500, "retry"),
    ({"type": "error", "error": [PROMPT]}, 500, "retry"),
    ({"type": "error"}, 500, "retry"),
    ({"error": PROMPT}, 500, "retry"),
    ({"error": [{"message": PROMPT}]}, 500, "retry"),
    ({"error": True, "code": 10**30}, 500, "retry"),
]


@pytest.mark.parametrize(("body", "status", "kind"), REFUSALS)
@pytest.mark.parametrize("form", ["whole", "in a stream", "in a stream, named", "bare in a stream"])
def test_an_error_of_any_form_is_what_it_says(body, status, kind, form):
    """With status 200, as JSON or within a stream: lasting, passing, or to be waited for; it slows nobody down."""
    text = json.dumps(body).encode()
    stream = {"in a stream": b"data: %s\n\n" % text, "in a stream, named": b"event: error\ndata: %s\n\n" % text}
    content_type = "application/json" if form == "whole" else "text/event-stream"
    judged = failure(stream.get(form, text), content_type)
    assert isinstance(judged.error, ApiError)
    assert (judged.error.status, judged.kind, judged.overloaded) == (status, kind, False)
    assert "Rumpelstiltskin" not in str(judged.error)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"Hello"',
        b"{}",
        b'{"type": "message"',
        b"<html>the page of a login</html>",
        b"\x1f\x8b\x08garbage",
        b"[" * 100_000,
        b'{"type": "message", "content": {"text": "Hello"}}',
        b'{"id": "c", "object": "chat.completion", "choices": [{"message": {"role": "assistant", "content": "Hi"}}]}',
        b'{"detail": "Not Found"}',
        b"event: ping\n\n",
        b": keep-alive\n\n",
        b"data: [DONE]\n\n",
        b'data: {"object": "chat.completion.chunk", "choices": [{"delta": {"content": "Hi"}}]}\n\ndata: [DONE]\n\n',
        b"data: <html>\n\n",
        b"data: " + b"[" * 100_000 + b"\n\n",
        b'event: message_stop\ndata: {"type": "message_stop"}\n\n',
    ],
)
@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream", "text/html", ""])
def test_what_is_no_message_is_one_ordinary_failure(body, content_type):
    """Tried again, and nobody is slowed down by it."""
    judged = failure(body, content_type)
    assert isinstance(judged.error, NotAMessage)
    assert (judged.kind, judged.overloaded) == ("retry", False)


def stream_of(*events: Any, name: bool = True) -> bytes:
    """Return events as an API sends them."""
    lines = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events]
    return b"".join(
        (f"event: {event['type']}\n".encode() if name else b"") + line
        for event, line in zip(events, lines, strict=True)
    )


START = {"type": "message_start", "message": {**MESSAGE, "content": [], "stop_reason": None}}
HELLO = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}}
END = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}}
STOP = {"type": "message_stop"}


def untyped(event: Json) -> bytes:
    """Return an event that says its type by its name only."""
    fields = {name: value for name, value in event.items() if name != "type"}
    return f"event: {event['type']}\ndata: {json.dumps(fields)}\n\n".encode()


BODIES = {
    "a message": json.dumps(MESSAGE).encode(),
    "with a byte order mark": b"\xef\xbb\xbf" + json.dumps(MESSAGE).encode(),
    "without a type": json.dumps({name: value for name, value in MESSAGE.items() if name != "type"}).encode(),
    "a stream": stream_of(START, HELLO, END, STOP),
    "a stream with a mark and comments": b"\xef\xbb\xbf: hi\n\n" + stream_of(START, HELLO, END, STOP),
    "with carriage returns": stream_of(START, HELLO, END, STOP).replace(b"\n", b"\r"),
    "without names": stream_of(START, HELLO, END, STOP, name=False),
    "without types": b"".join(map(untyped, (START, HELLO, END, STOP))),
    "without a start": stream_of(HELLO, END, STOP),
    "without an end": stream_of(START, HELLO, END),
    "without an end, but done": stream_of(START, HELLO) + b"data: [DONE]\n\n",
    "without the last blank line": stream_of(START, HELLO, END, STOP).rstrip(),
    "with an end that has no data": stream_of(START, HELLO, END) + b"event: message_stop\n\n",
    "with another API's words": b'data: null\n\ndata: 5\n\ndata: {"usage": 3}\n\n' + stream_of(START, HELLO, END, STOP),
    "with numbers that are none": stream_of(START, HELLO, {"type": "x", "y": float("nan")}, END, STOP),
}


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_text_arrives_however_it_is_sent(name, size):
    """In one piece or in many; as a stream where a message was expected, and the other way round."""
    body = BODIES[name]
    assert message_in(answer(), body, "m")["content"] == MESSAGE["content"]

    incoming = Incoming(answer("text/event-stream"), "m")
    lines = [line for at in range(0, len(body), size) for line in incoming.feed(body[at : at + size])]
    lines += incoming.end()
    if incoming.complete:
        assert incoming.message()["content"] == MESSAGE["content"]
        kinds = [json.loads(line)["type"] for line in lines]
        assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
        assert not any(b"\n" in line or b"NaN" in line for line in lines)
    else:
        assert message_in(answer(), incoming.body(), "m")["content"] == MESSAGE["content"]


@pytest.mark.parametrize(("content", "blocks"), [(None, []), ("Hello", MESSAGE["content"])])
def test_content_is_a_list_of_blocks(content, blocks):
    """A caller goes through them."""
    assert message_in(answer(), json.dumps({**MESSAGE, "content": content}).encode(), "m") == {
        **MESSAGE,
        "content": blocks,
    }


def test_a_message_passes_as_it_is():
    """Blocks, stop reasons and fields that we do not know are the caller's."""
    strange = {**MESSAGE, "content": [{"type": "hologram", "x": [None]}], "stop_reason": "moonrise", "new": {"a": 1}}
    assert message_in(answer(), json.dumps(strange).encode(), "m") == strange


def test_half_a_stream_is_a_failure_that_slows_nobody():
    """Whoever ended it in good order can be reached."""
    judged = failure(stream_of(START, HELLO), "text/event-stream")
    assert isinstance(judged.error, ApiUnreachable)
    assert (judged.kind, judged.overloaded) == ("retry", False)


def test_nobody_else_says_restart():
    """It is ours alone, and would have readers drop what they have; a type on two lines is none."""
    incoming = Incoming(answer("text/event-stream"), "m")
    body = stream_of(START, {"type": "restart"}, HELLO, name=False) + b'data: {"type": "a\\nb"}\n\n'
    assert [json.loads(line)["type"] for line in incoming.feed(body)] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
    ]


@pytest.mark.parametrize(
    ("cause", "kind", "overloaded"),
    [
        (httpx2.ConnectError("refused"), "retry", True),
        (httpx2.ReadError("reset by peer"), "retry", True),
        (httpx2.RemoteProtocolError("Server disconnected without sending a response."), "retry", True),
        (httpx2.RemoteProtocolError("illegal status line"), "retry", False),
        (httpx2.RemoteProtocolError("malformed chunk"), "retry", False),
        (httpx2.DecodingError("incorrect header check"), "retry", False),
        (UnicodeDecodeError("utf-8", b"x", 0, 1, "?"), "retry", False),
        (httpx2.TooManyRedirects("20"), "fatal", False),
        (httpx2.InvalidURL("no host"), "fatal", False),
        (httpx2.UnsupportedProtocol("ftp"), "fatal", False),
    ],
)
def test_who_answers_nonsense_is_there(cause, kind, overloaded):
    """Only an API that cannot be reached slows everybody down."""
    error = anthropic.APIConnectionError(request=answer().request)
    error.__cause__ = cause
    judged = failure_of(error, 1.0)
    assert judged is not None
    assert isinstance(judged.error, ApiUnreachable)
    assert (judged.kind, judged.overloaded) == (kind, overloaded)


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["error", "message"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "error", "message", "code", "content", "role", "details"]), inner)
    ),
    max_leaves=8,
)


@given(_JSON | st.binary(), st.sampled_from(["application/json", "text/event-stream", ""]), st.booleans())
def test_nothing_but_an_ordinary_failure_escapes(body, content_type, as_event):
    """Whatever comes, it is a message, or a failure that a job's caller can read."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    text = b"event: error\ndata: " + text + b"\n\n" if as_event else text
    try:
        message = message_in(answer(content_type), text, "m")
    except Exception as exc:  # noqa: BLE001 - which ones may be raised is the question
        error: Exception = exc
    else:
        assert isinstance(message["content"], list)
        return
    judged = failure_of(error, 1.0)
    assert judged is not None, error
    assert isinstance(judged.error, LanesError)
    assert not judged.overloaded
