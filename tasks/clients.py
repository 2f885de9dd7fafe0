"""The SDK's clients: one for each key in a process, built once, with connections that stay open."""

from __future__ import annotations

import logging
import math
import os
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from tasks.loop import call_loop

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx2
    from anthropic import AsyncAnthropic
    from anthropic._types import OpenTelemetryOptions

#: Seconds an unused connection stays open. httpx closes them after 5, so that the first chat message after a pause
#: would pay for another TCP and TLS handshake. A connection the server has closed meanwhile is noticed and replaced.
KEEPALIVE_EXPIRY = 120.0

#: More than any worker has slots: a call must never wait for a connection of its own process.
MAX_CONNECTIONS = 10_000

#: Seconds to open a connection to the API; more means that it is down, not slow.
CONNECT_SECONDS = 5.0

#: The part of its time after which a call that has no connection yet gets none.
CONNECT_SHARE = 0.95

#: The SDK's logger that writes each request, prompt and all, at DEBUG.
_REQUESTS_LOGGER = "anthropic._base_client"

_unlogged: ContextVar[bool] = ContextVar("lanes_unlogged", default=False)

_building = threading.Lock()


def client_for(api_key: str, base_url: str) -> AsyncAnthropic:
    """Return the process's client for a key, to be used on its loop.

    Building one takes 22 ms, the SDK's import about a second.
    """
    clients, at = call_loop().clients, (api_key, base_url)
    if at not in clients:
        with _building:
            if at not in clients:
                clients[at] = _build(api_key, base_url)
    client: AsyncAnthropic = clients[at]
    return client


def _build(api_key: str, base_url: str) -> AsyncAnthropic:
    import httpx2
    from anthropic import AsyncAnthropic, DefaultAioHttpClient

    _quieten("httpx2", logging.WARNING)  # else each call adds a line to the worker's log
    _quieten("anthropic", logging.INFO)  # at DEBUG it logs the prompt
    limits = httpx2.Limits(
        max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS, keepalive_expiry=KEEPALIVE_EXPIRY
    )
    return AsyncAnthropic(
        api_key=api_key,
        base_url=base_url,
        max_retries=0,  # the SDK would sleep a retry-after of days inside the slot
        timeout=call_timeout(math.inf),
        # The SDK's other client for loops needs 1.4 times the CPU for a call, and 3 times for a stream's token.
        http_client=DefaultAioHttpClient(limits=limits),
        open_telemetry=_open_telemetry(),
    )


def call_timeout(seconds: float) -> httpx2.Timeout:
    """Return the timeouts of a call that may take some seconds in all: its deadline on the loop bounds the rest.

    No connection within them is told from no answer: it is noticed a little earlier.
    """
    import httpx2

    return httpx2.Timeout(None, connect=min(CONNECT_SECONDS, CONNECT_SHARE * seconds))


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

    Other calls of a project's own in the same process are logged as it wants them to be.
    """
    logging.getLogger(_REQUESTS_LOGGER).addFilter(_may_be_logged)  # the same one is added once
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
