"""What a call makes of a server that hangs up, or that does not speak HTTP."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from celery_app.errors import ApiUnreachable
from tasks.clients import call_timeout, client_for
from tasks.failure import Failure
from tasks.failures import failure_of
from tasks.loop import close_loop, run

IN_TIME_S = 30.0
KEY = "sk-secret-0123"
PARAMS: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}
MESSAGE = b'{"id":"m","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,"usage":{}}'
OK = b"HTTP/1.1 200 OK\r\n"


@contextmanager
def server(reply: bytes, *, reset: bool = False) -> Iterator[tuple[str, list[bytes]]]:
    """Answer each connection with some bytes and hang up; give the URL, and the first lines of what was asked."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    asked.append(connection.recv(1 << 16).partition(b"\r\n")[0])
                    connection.sendall(reply)
                    if reset:
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(IN_TIME_S)


def called(url: str, *, stream: bool = False, **more: Any) -> bytes:
    """Make a call; return its body."""
    api, arguments = client_for(KEY, url).messages, {**PARAMS, **more, "timeout": call_timeout(IN_TIME_S)}

    async def streamed() -> bytes:
        async with api.with_streaming_response.create(**arguments, stream=True) as answer:
            return b"".join([chunk async for chunk in answer.http_response.aiter_bytes()])

    async def whole() -> bytes:
        return (await api.with_raw_response.create(**arguments)).http_response.content

    try:
        return run(streamed if stream else whole, IN_TIME_S)
    finally:
        close_loop()


def failure(url: str, *, stream: bool = False, **more: Any) -> Failure | None:
    """Make a call that fails, and judge it."""
    with pytest.raises(Exception) as raised:  # noqa: PT011 - which one is the library's affair
        called(url, stream=stream, **more)
    return failure_of(raised.value, 1.0, [KEY])


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (b"", "disconnected"),
        (OK + b"x-half: of a head", "disconnected"),
        (OK + b"content-length: 100\r\n\r\nhalf", "incomplete"),
        (OK + b"transfer-encoding: chunked\r\n\r\n9\r\nhalf", "incomplete"),
    ],
)
def test_who_hangs_up_is_away(reply, words, stream):
    """The job is tried again, and everybody slows down."""
    with server(reply) as (url, _):
        judged = failure(url, stream=stream)

    assert judged is not None
    assert isinstance(judged.error, ApiUnreachable)
    assert (judged.kind, judged.overloaded) == ("retry", True)
    assert words in str(judged.error)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    "reply",
    [
        b"SSH-2.0-OpenSSH_9.6 sk-secret-0123\r\n",
        OK + b"no header at all sk-secret-0123\r\n\r\n",
        OK + b"content-length: sk-secret-0123\r\n\r\n",
        OK + b"transfer-encoding: chunked\r\n\r\nsk-secret-0123\r\n",
        OK + b"x-large: " + b"sk-secret-0123" * 2_000 + b"\r\n\r\n",
    ],
    ids=["status", "header", "length", "chunk", "large"],
)
def test_who_speaks_no_http_is_there(reply, stream):
    """The job is tried again, nobody else slows down, and nothing that was said is shown."""
    with server(reply) as (url, _):
        judged = failure(url, stream=stream)

    assert judged is not None
    assert (judged.kind, judged.overloaded) == ("retry", False)
    assert "no HTTP" in str(judged.error)
    assert "secret" not in str(judged.error)


def test_a_reset_and_a_refusal_are_called_so(dead_port):
    """An operator reads what the system says."""
    with server(b"", reset=True) as (url, _):
        reset = failure(url)
    refused = failure(f"http://127.0.0.1:{dead_port}")

    assert reset is not None
    assert refused is not None
    assert "reset by peer" in str(reset.error)
    assert "Connection refused" in str(refused.error)
    assert reset.overloaded
    assert refused.overloaded


def test_what_cannot_be_sent_is_no_failure_of_the_api():
    """A header of two lines would be refused each time."""
    with server(b"") as (url, asked):
        assert failure(url, extra_headers={"x-two": "lines\nof it"}) is None
    assert not any(asked)


def test_a_call_goes_through_the_environments_proxy(monkeypatch):
    """As the SDK's other clients do."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with server(OK + b"content-length: %d\r\n\r\n%b" % (len(MESSAGE), MESSAGE)) as (proxy, asked):
        monkeypatch.setenv("HTTP_PROXY", proxy)
        assert called("http://api.example") == MESSAGE

    assert asked == [b"POST http://api.example/v1/messages HTTP/1.1"]
