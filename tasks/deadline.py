"""A total deadline for a call, where HTTP clients only know one per read, and the way to end it from another thread.

Every read, write and connect of a call goes through the network backend of its connection pool. There the time that
is left is known, so a server that answers a byte a second cannot keep a slot beyond the deadline, in whatever phase.
"""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import httpcore2
import httpx2

from tasks.cancelling import running

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tasks.cancelling import Running

#: ``time.monotonic()`` at which the call in hand has to be over.
_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Let the network operations of this block take `seconds` in all."""
    token = _deadline.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _deadline.reset(token)


def _at_most(timeout: float | None, expired: type[Exception]) -> float | None:
    """Return the shorter of an operation's own timeout and what is left of the deadline."""
    at = _deadline.get()
    if at is None:
        return timeout
    left = at - time.monotonic()
    if left <= 0:
        raise expired("the call's deadline passed")
    return left if timeout is None else min(timeout, left)


class DeadlineStream(httpcore2.NetworkStream):
    """A connection that heeds the deadline of the call it is used for at the moment."""

    def __init__(self, stream: httpcore2.NetworkStream) -> None:
        """Wrap a connected stream."""
        self._stream = stream
        self._call: Running | None = None
        self._lock = threading.Lock()

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read what is there, waiting no longer than the deadline."""
        self._take_up(httpcore2.ReadError)
        return self._stream.read(max_bytes, _at_most(timeout, httpcore2.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write all of `buffer`, waiting no longer than the deadline."""
        self._take_up(httpcore2.WriteError)
        self._stream.write(buffer, _at_most(timeout, httpcore2.WriteTimeout))

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def shut_down(self, call: Running) -> None:
        """Wake the thread that waits for this connection, if it is that call's; the pool drops the connection then."""
        with self._lock:
            if self._call is call:
                with suppress(OSError):  # it is closed already
                    # Not the TLS socket's own method, which would drop its state below the thread that reads.
                    socket.socket.shutdown(self.get_extra_info("socket"), socket.SHUT_RDWR)

    def _take_up(self, cancelled: type[Exception]) -> None:
        """Work for the call in hand from now on: a connection serves many, one after the other."""
        call = running()
        with self._lock:
            self._call = call
        if call is not None and not call.use(self):
            raise cancelled("the call was cancelled")

    def start_tls(self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None) -> Any:
        """Shake hands, waiting no longer than the deadline."""
        left = _at_most(timeout, httpcore2.ConnectTimeout)
        return DeadlineStream(self._stream.start_tls(ssl_context, server_hostname, left))

    def get_extra_info(self, info: str) -> Any:
        """Tell of the connection below."""
        return self._stream.get_extra_info(info)


class DeadlineBackend(httpcore2.NetworkBackend):
    """Opens connections that heed the deadline."""

    def __init__(self, backend: httpcore2.NetworkBackend) -> None:
        """Wrap the backend that does the work."""
        self._backend = backend

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        """Connect, waiting no longer than the deadline."""
        left = _at_most(timeout, httpcore2.ConnectTimeout)
        return DeadlineStream(self._backend.connect_tcp(host, port, left, local_address, socket_options))

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore2.NetworkStream:
        """Connect, waiting no longer than the deadline."""
        left = _at_most(timeout, httpcore2.ConnectTimeout)
        return DeadlineStream(self._backend.connect_unix_socket(path, left, socket_options))

    def sleep(self, seconds: float) -> None:
        """Pause between two attempts to connect."""
        self._backend.sleep(seconds)


def heed_deadlines(client: httpx2.Client) -> httpx2.Client:
    """Make every connection of `client`, through proxies too, heed `deadline`; return the client.

    httpx2 offers no public way to hand its transports a network backend (2.16), so theirs is wrapped in place.
    """
    for transport in (client._transport, *client._mounts.values()):
        if isinstance(transport, httpx2.HTTPTransport):
            pool = transport._pool
            pool._network_backend = DeadlineBackend(pool._network_backend)
    return client
