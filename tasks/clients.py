"""The SDK's clients: one for each key in a process, built once, with connections that stay open."""

from __future__ import annotations

import logging
import os
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from tasks.failures import CONNECT_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anthropic import Anthropic
    from anthropic._types import OpenTelemetryOptions

#: Seconds an unused connection stays open. httpx closes them after 5, so that the first chat message after a pause
#: would pay for another TCP and TLS handshake. A connection the server has closed meanwhile is noticed and replaced.
KEEPALIVE_EXPIRY = 120.0

#: More than any worker has slots: a call must never wait for a connection of its own process.
MAX_CONNECTIONS = 10_000

#: The SDK's logger that writes each request, prompt and all, at DEBUG.
_REQUESTS_LOGGER = "anthropic._base_client"

_unlogged: ContextVar[bool] = ContextVar("lanes_unlogged", default=False)

_clients: dict[tuple[str, str], Anthropic] = {}
_building = threading.Lock()


def client_for(api_key: str, base_url: str) -> Anthropic:
    """Return the process's client for a key; building one takes 22 ms, the SDK's import about a second."""
    client = _clients.get((api_key, base_url))
    if client is None:
        with _building:
            client = _clients.get((api_key, base_url)) or _build(api_key, base_url)
            _clients[api_key, base_url] = client
    return client


def forget_clients() -> None:
    """Drop all clients: a forked process must not share its parent's connections."""
    _clients.clear()


def _build(api_key: str, base_url: str) -> Anthropic:
    import httpx2
    from anthropic import Anthropic, DefaultHttpxClient

    from tasks.deadline import heed_deadlines

    _quieten("httpx2", logging.WARNING)  # else each call adds a line to the worker's log
    _quieten("anthropic", logging.INFO)  # at DEBUG it logs the prompt
    logging.getLogger(_REQUESTS_LOGGER).addFilter(_may_be_logged)  # the same one is added once
    limits = httpx2.Limits(
        max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS, keepalive_expiry=KEEPALIVE_EXPIRY
    )
    return Anthropic(
        api_key=api_key,
        base_url=base_url,
        max_retries=0,  # the SDK would sleep a retry-after of days inside the slot
        timeout=httpx2.Timeout(None, connect=CONNECT_SECONDS),  # the call's deadline bounds everything else
        http_client=heed_deadlines(DefaultHttpxClient(limits=limits)),
        open_telemetry=_open_telemetry(),
    )


def _open_telemetry() -> OpenTelemetryOptions:
    """Say how the SDK traces our calls: as its environment variables have it, but never with content.

    An option that is given is all that the SDK heeds, so what the environment may switch off is read here.
    """
    return {
        "propagation": _is_on("ANTHROPIC_OPEN_TELEMETRY_PROPAGATION"),
        "traces": {"enabled": _is_on("ANTHROPIC_OPEN_TELEMETRY"), "content_mode": "metadata_only"},
    }


def _is_on(variable: str) -> bool:
    return os.environ.get(variable, "").lower() != "false"


@contextmanager
def unlogged() -> Iterator[None]:
    """Keep the calls of this block out of the SDK's log, whatever ``ANTHROPIC_LOG`` or a project's logging says.

    A project's own calls in the same process are logged as it wants them to be.
    """
    token = _unlogged.set(True)
    try:
        yield
    finally:
        _unlogged.reset(token)


def _may_be_logged(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.INFO or not _unlogged.get()


def _quieten(name: str, level: int) -> None:
    """Set a logger's level where nobody else has."""
    log = logging.getLogger(name)
    if log.level == logging.NOTSET:
        log.setLevel(level)
