"""Messages to a webhook that is slow, or sends us elsewhere."""

import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from kit.waiting import wait_until
from pydantic import SecretStr

from celery_app.budget.reservation import Warned
from celery_app.process import webhook
from celery_app.process.webhook import MOST_WAITING, WEBHOOK, Webhook
from celery_app.settings import Settings
from tasks.spending import say_nearly_spent


class _Server(ThreadingHTTPServer):
    """Answers once it may; what it was asked for is in `paths`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.may_answer, self.paths = threading.Event(), list[str]()
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.paths.append(self.path)
        self.server.may_answer.wait(30)
        self.send_response(302 if self.path == "/moved" else 204)
        self.send_header("Location", f"{self.server.url}/elsewhere")
        self.end_headers()

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[_Server]:
    """A server that holds its answers back."""
    with _Server() as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.may_answer.set()
        made.shutdown()


def test_nobody_waits_for_a_slow_webhook_and_little_is_kept_for_it(server, monkeypatch, caplog):
    """What it does not take in time is dropped and logged; the rest is delivered in order, and the thread ends."""
    monkeypatch.setattr(webhook, "TRY_S", 30.0)  # however busy the machine is, each is sent once
    sender = Webhook()
    with caplog.at_level(logging.WARNING):
        for number in range(MOST_WAITING + 10):
            sender.send(f"{server.url}/{number}", {})
    assert len(caplog.messages) in {9, 10}  # one may be on its way
    assert not any(server.url in message for message in caplog.messages)
    server.may_answer.set()
    wait_until(lambda: sender._thread is None, "all is delivered")
    numbers = [int(path[1:]) for path in server.paths]
    assert numbers == sorted({*numbers})
    assert len(server.paths) == MOST_WAITING + 10 - len(caplog.messages)


def test_a_webhook_that_moves_is_not_followed(server, monkeypatch, caplog):
    """Where it points to, nobody has checked; the log names no more than the host."""
    monkeypatch.setattr(webhook, "PAUSES_S", (0.0,))
    server.may_answer.set()
    sender = Webhook()
    with caplog.at_level(logging.WARNING):
        sender.send(f"{server.url}/moved", {})
        wait_until(lambda: sender._thread is None, "it gives up")
    assert server.paths == ["/moved", "/moved"]
    assert caplog.messages == ["the webhook at 127.0.0.1 took no message: HTTPError"]


def test_an_address_that_no_request_can_be_made_of_ends_no_thread(server, monkeypatch, caplog, capsys):
    """The next message is delivered, and nothing of the address is written anywhere."""
    monkeypatch.setattr(webhook, "PAUSES_S", ())
    server.may_answer.set()
    sender = Webhook()
    with caplog.at_level(logging.WARNING):
        sender.send(f"{server.url}/secret 1", {})
        sender.send(f"{server.url}/next", {})
        wait_until(lambda: sender._thread is None, "all is delivered")
    assert server.paths == ["/next"]
    assert caplog.messages == ["the webhook at 127.0.0.1 took no message: InvalidURL"]
    assert "secret" not in capsys.readouterr().err


def test_a_warning_that_cannot_be_sent_fails_no_call(monkeypatch, caplog):
    """What sending it raises is logged by its type; once there are threads again, the next one is sent."""

    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    settings = Settings(usd_webhook=SecretStr("http://localhost/secret"))
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(threading.Thread, "start", no_thread)
        say_nearly_spent(settings, Warned("all|", 8, 10, "2026-01-01"))
    assert caplog.messages[-1] == "nobody could be told that most of a cap is spent: RuntimeError"
    assert WEBHOOK._thread is None
    WEBHOOK.begin()
