"""Messages to a webhook: sent beside the work, a few at most, and never waited for."""

from __future__ import annotations

import json
import logging
import threading
import time
import urllib.request
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from celery_app.process.forks import begin_in_each_process

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger(__name__)

#: Messages that wait at most: each is about a cap of the day, and nobody reads more of them.
MOST_WAITING = 16

#: Seconds that one try may take, and pauses before the further ones.
TRY_S, PAUSES_S = 5.0, (1.0, 5.0)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A webhook answers itself; where it sends us, nobody has checked."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Webhook:
    """Sends JSON to addresses, one message after the other, in a thread that ends when there are no more."""

    def __init__(self) -> None:
        """Send nothing yet."""
        begin_in_each_process(self)

    def begin(self) -> None:
        """Have nothing to send: the parent's messages are the parent's."""
        self._lock = threading.Lock()
        self._waiting: SimpleQueue[tuple[str, bytes]] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def send(self, url: str, message: Mapping[str, Any]) -> None:
        """Send a message soon; one too many is dropped, which is logged."""
        with self._lock:
            has_room = self._waiting.qsize() < MOST_WAITING
            if has_room:
                self._waiting.put((url, json.dumps(message).encode()))
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="lanes-webhook", daemon=True)
                thread.start()  # may fail; the next message tries again
                self._thread = thread
        if not has_room:
            logger.warning("the webhook at %s does not keep up, a message is dropped", _host(url))

    def _run(self) -> None:
        while True:
            with self._lock:
                if self._waiting.empty():
                    self._thread = None
                    return
                url, body = self._waiting.get()
            _deliver(url, body)


def _deliver(url: str, body: bytes) -> None:
    """Post a message; its address is a secret to some services, so nothing but the host is logged."""
    for pause in (*PAUSES_S, None):
        try:
            _post(url, body)
        except Exception as exc:  # noqa: BLE001 - else the thread would end, and its traceback show the address
            if pause is None:
                logger.warning("the webhook at %s took no message: %s", _host(url), type(exc).__name__)
                return
            time.sleep(pause)
        else:
            return


def _post(url: str, body: bytes) -> None:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"}, method="POST")  # noqa: S310 - checked where it was set
    handlers: list[Any] = [_NoRedirect]
    if urlsplit(url).scheme == "http":
        handlers.append(urllib.request.ProxyHandler({}))  # it is on this machine
    with urllib.request.build_opener(*handlers).open(request, timeout=TRY_S):
        pass


def _host(url: str) -> str:
    return urlsplit(url).hostname or "?"


#: That of this process.
WEBHOOK = Webhook()
