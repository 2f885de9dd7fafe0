"""Gateways that are nearly right: real HTTP from a raw server, a real worker, a real broker."""

import gzip
import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from celery import Celery
from kit.client_rig import IN_TIME_S, web_app
from kit.worker import worker

from celery_app.client import Client
from celery_app.connections.redis_client import redis_client
from celery_app.errors import ApiError, ApiUnreachable, LanesError, NotAMessage
from tasks import create_message
from tasks.loop import close_loop
from tasks.warmup import ready
from tests.conftest import close

#: Celery 5.7 stores a result by a command that redis-py 8 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

SAID = "Rumpelstiltskin is the patient's name"

SSE, JSON = "text/event-stream", "application/json"

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
OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}


def sse(*events: Any) -> bytes:
    """Return events as an API sends them."""
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


START = {"type": "message_start", "message": {**MESSAGE, "content": [], "stop_reason": None}}
HELLO = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}}
STOP = {"type": "message_stop"}


@dataclass(frozen=True, slots=True)
class Reply:
    """What the gateway answers a call with.

    Attributes:
        body: in pieces, each sent by itself.
        content_type: empty: none.
        status: of HTTP.
        headers: besides.
    """

    body: tuple[bytes, ...]
    content_type: str = SSE
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


def one(body: Any, content_type: str = SSE, **more: Any) -> Reply:
    """Return a reply in one piece."""
    return Reply((body if isinstance(body, bytes) else json.dumps(body).encode(),), content_type, **more)


def byte_by_byte(body: bytes) -> Reply:
    """Return a reply whose every byte comes by itself."""
    return Reply(tuple(bytes([byte]) for byte in body))


GZIP = (("content-encoding", "gzip"),)

#: What ends as text, however HTTP has it come; what a body may be, tests/unit/test_incoming.py says.
TEXTS: dict[str, Reply] = {
    "plain message": one(MESSAGE, JSON),
    "message as a stream": one(MESSAGE, SSE),
    "no content type": one(sse(START, HELLO, STOP), ""),
    "byte by byte": byte_by_byte(sse(START, HELLO, STOP)),
    "compressed": one(gzip.compress(sse(START, HELLO, STOP)), headers=GZIP),
    "done without stop": one(sse(START, HELLO) + b"data: [DONE]\n\n"),
}

#: What ends as one failure that passes, or lasts; whole or streamed.
FAILURES: dict[str, tuple[Reply, type[LanesError], str]] = {
    "overloaded event": (one(sse(START, HELLO, OVERLOADED)), ApiError, "529 overloaded_error: Overloaded"),
    "error of words": (one(sse(START, {"type": "error", "error": SAID})), ApiError, "500 error"),
    "page": (one(b"<html>log in</html>", "text/html"), NotAMessage, "text/html"),
    "nothing": (one(b""), NotAMessage, SSE),
    "cut short": (one(sse(START, HELLO)), ApiUnreachable, "ended before its message"),
    "not compressed": (one(sse(START, HELLO, STOP), headers=GZIP), ApiUnreachable, "not encoded as it says"),
    "redirection to nowhere": (one(b"", status=307, headers=(("location", "ftp://x/"),)), ApiUnreachable, "ftp"),
}
LASTING: dict[str, tuple[Reply, type[LanesError], str]] = {
    "refusal json": (one({"error": {"type": "not_found_error"}}, JSON), ApiError, "404 not_found_error"),
    "redirections": (one(b"", status=307, headers=(("location", "/v1/messages"),)), ApiUnreachable, "redirect"),
}

REPLIES = {**TEXTS, **{name: reply for name, (reply, *_) in {**FAILURES, **LASTING}.items()}}


class Gateway(socketserver.ThreadingTCPServer):
    """Answers a call by the name of its model; keeps what it was sent."""

    allow_reuse_address = daemon_threads = True

    def __init__(self, models: Reply | None = None) -> None:
        """Listen; `models` answers a GET."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: list[dict[str, Any]] = []
        self.betas: list[str | None] = []
        self.models = models or one({"error": "no such path"}, JSON, status=404)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Gateway

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.bodies.append(body)
        self.server.betas.append(self.headers["anthropic-beta"])
        self._send(REPLIES.get(body["model"]) or one(MESSAGE, JSON))

    def do_GET(self) -> None:
        self._send(self.server.models)

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for name, value in reply.headers:
            self.send_header(name, value)
        if reply.content_type:
            self.send_header("content-type", reply.content_type)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for piece in reply.body:
            if piece:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: Any) -> None: ...


@contextmanager
def gateway(models: Reply | None = None) -> Iterator[Gateway]:
    """Run a gateway."""
    with Gateway(models) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@dataclass(frozen=True, slots=True)
class Rig:
    """A web app, and what is behind it."""

    app: Celery
    client: Client
    gateway: Gateway


@pytest.fixture(scope="module")
def up(valkey, tmp_path_factory):
    """One worker for all tests, which gives up early."""
    with valkey.client(13) as redis:
        redis.flushdb()
    app = web_app(valkey.url(13))
    with gateway() as behind:
        env = {
            "CELERY_BROKER_URL": valkey.url(13),
            "EZAI_API_KEY": "sk-secret-0123",
            "EZAI_BASE_URL": behind.url,
            "LANES_CRITICAL_ATTEMPTS": "2",
        }
        with worker(tmp_path_factory.mktemp("worker"), "-c", "8", **env):
            yield Rig(app, Client(app), behind)
    close(app)


def params(model: str, **more: Any) -> dict[str, Any]:
    """Return the parameters of a call; its model names the answer."""
    return {"model": model, "max_tokens": 100, "messages": [{"role": "user", "content": SAID}], **more}


def slowed_models(up: Rig) -> set[str]:
    """Return the models whose API is taken for overloaded."""
    redis = redis_client(up.app)
    budgets = [key for key in redis.keys("lanes:budget:*") if not key.endswith(b":calls")]
    return {key.decode().rpartition(":")[2].rstrip("}") for key in budgets if redis.hexists(key, "overload_rate")}


def calls_of(up: Rig, model: str) -> int:
    """Return how often a model was called."""
    return [body["model"] for body in up.gateway.bodies].count(model)


def read(events: list[dict[str, Any]]) -> str:
    """Return the text that a reader has who relies on the Messages API."""
    blocks: dict[int, str] = {}
    for event in events:
        if event["type"] == "content_block_start":
            blocks[event["index"]] = event["content_block"]["text"]
        elif event["type"] == "content_block_delta":
            blocks[event["index"]] += event["delta"]["text"]
    return "".join(blocks.values())


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_is_a_text(up, name):
    """Asked for as a whole or as a stream, after one call each; a stream's reader misses no part of it."""
    stream = up.client.stream(**params(name))
    events = list(stream)
    assert (events[0]["type"], events[-1]["type"]) == ("message_start", "message_stop")
    assert read(events) == "Hello"
    assert stream.message is not None
    assert stream.message["content"] == MESSAGE["content"]
    message = up.client.ask(**params(name))
    assert [block.model_dump(exclude_none=True) for block in message.content] == MESSAGE["content"]
    assert calls_of(up, name) == 2
    assert not slowed_models(up)


@pytest.mark.parametrize("name", {**FAILURES, **LASTING})
@pytest.mark.parametrize("streaming", [False, True])
def test_a_failure_is_one_ordinary_failure(up, name, streaming):
    """Of its kind, as often as its lane says, with none of the prompt in it; and it slows nobody down."""
    _, kind, words = {**FAILURES, **LASTING}[name]
    before, redirected = calls_of(up, name), REPLIES[name].status >= 300
    if streaming:
        events = list(up.client.stream(**params(name)))
        assert events[-1]["type"] == "error"
        error, found = events[-1]["error"]["message"], events[-1]["error"]["type"]
        assert found == kind.__name__ or kind is ApiError
    else:
        with pytest.raises(kind) as caught:
            up.client.ask(**params(name))
        error = str(caught.value)
    assert words in error
    assert "Rumpelstiltskin" not in error
    if not redirected:
        assert calls_of(up, name) - before == (1 if name in LASTING else 2)
    assert not slowed_models(up)


def test_a_block_that_we_do_not_know_passes_both_ways(up):
    """The API is sent what the caller wrote, whatever it is; betas go where the SDK's own method sends them."""
    block = {"type": "hologram", "light": [{"a": None}], "cache_control": {"type": "ephemeral"}}
    messages = [
        {"role": "critic", "content": [block]},
        {"role": "user", "content": [{"type": "text", "text": "x", "new": 1}]},
    ]
    sent = params("any", messages=messages, system=[block], brand_new={"a": 1})
    up.client.ask(**sent, betas=["one-2026", "two-2026"], extra_headers={"Anthropic-Beta": "zero-2026"})

    assert up.gateway.bodies[-1] == sent
    assert up.gateway.betas[-1] == "zero-2026,one-2026,two-2026"


def test_a_fast_call_draws_on_a_budget_of_its_own(up):
    """Beside its model's, whole, streamed and in a batch."""
    up.client.ask(**params("opus"))
    up.client.ask(**params("opus", speed="fast"))
    list(up.client.stream(**params("opus", extra_body={"speed": "fast"})))
    up.client.ask(**params("opus", extra_headers={"anthropic-beta": "context-1m-2025-08-07"}))
    list(up.client.submit_many([params("opus-2", speed="fast")]).results())

    names = {key.decode().rpartition(":")[2].rstrip("}") for key in redis_client(up.app).keys("lanes:budget:*opus*")}
    assert names == {"opus", "opus+fast", "opus+context-1m", "opus-2+fast"}


@pytest.mark.parametrize(
    ("models", "word"),
    [
        (one({"type": "error", "error": {"type": "permission_error", "message": "x"}}, JSON, status=403), "(403)"),
        (one({"error": "unknown path"}, JSON, status=401), "(401)"),
        (one(b"<html>", "text/html", status=401), "(401)"),
        (one(b"", status=404), ""),
        (one(b"", status=405), ""),
        (one(b"", status=429), ""),
        (one(b"", status=500), ""),
        (one(b"", status=302, headers=(("location", "ftp://x/"),)), "cannot be reached"),
        (one(b"garbage", JSON, headers=GZIP), ""),
        (one(b"<html>", "text/html"), ""),
    ],
)  # fmt: skip
def test_a_key_that_may_call_but_not_list_models_starts_a_worker(models, word, caplog):
    """Only what is certainly a wrong key is a reason to refuse; a doubtful one is told of."""
    with gateway(models) as behind, caplog.at_level("WARNING"):
        ready(["sk-secret-0123"], behind.url, 1)
        close_loop()

    assert word in caplog.text
    assert word or "did not list" not in caplog.text
    assert "sk-secret" not in caplog.text


def test_a_worker_with_a_key_that_may_not_list_models_does_its_jobs(valkey, tmp_path):
    """From its start to a result."""
    with valkey.client(15) as redis:
        redis.flushdb()
    app = web_app(valkey.url(15))
    refused = one({"type": "error", "error": {"type": "permission_error", "message": "x"}}, JSON, status=403)
    with gateway(refused) as behind:
        env = {"CELERY_BROKER_URL": valkey.url(15), "EZAI_API_KEY": "k", "EZAI_BASE_URL": behind.url}
        with worker(tmp_path, "-Q", "critical", "-c", "1", **env):
            result = app.tasks[create_message.name].apply_async(kwargs=params("any"), queue="critical")
            assert result.get(timeout=IN_TIME_S) == MESSAGE
    close(app)
