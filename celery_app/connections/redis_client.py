"""The process's own connection to the broker's Redis, for whatever is no message."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from celery_app.connections.urls import shown
from celery_app.errors import BrokerRefused, BrokerTakesNoWrites, BrokerUnreachable, MaybeQueued
from celery_app.jobs.publishing import PublishUncertain
from celery_app.keys import STREAM
from celery_app.process.heartbeat import REPLY_TIMEOUT
from celery_app.settings import settings_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis import ConnectionPool, Redis

#: Connections at most: one for each thread that talks to Redis at the same moment. redis-py raises beyond it, so it is
#: a fuse against leaks and far above any worker's number of slots.
MAX_CONNECTIONS = 1_000

#: Words of a server's refusals that say nothing of the command: its disk is full, its replicas are gone, a script of
#: somebody's runs for ever. That its memory is full or that it is a replica itself redis-py tells by the class.
_NO_WRITES = ("MISCONF", "NOREPLICAS", "BUSY", "CLUSTERDOWN", "MASTERDOWN")


def redis_client(app: Any) -> Redis:
    """Return the Redis client of an application: one per process, made on first use, connected on its first command.

    It is built from what kombu would connect with, so that TLS, Sentinel, sockets, credentials and transport options
    are the broker's by construction. Not from a channel of kombu's, though: that one pings the broker when it is made,
    joins a poller, and raises once more than ten threads use it. The connection pool notices a fork by itself.

    Args:
        app: a Celery application with lanes.

    Returns:
        A client without a key prefix; put `key_prefix` before every key.

    Raises:
        InvalidSettings: if the environment is wrong.
    """
    return _kept(app, "lanes_redis", None)


def heartbeat_client(app: Any) -> Redis:
    """Return a client as `redis_client` does, for the heartbeat's entries: it is sooner out of patience.

    A worker is given long to answer, and a project may have set any timeout.
    """
    return _kept(app, "lanes_heartbeat_redis", REPLY_TIMEOUT)


def _kept(app: Any, name: str, reply_timeout: float | None) -> Redis:
    of = (settings_of(app).broker_url, repr(app.conf.broker_transport_options))
    cached: tuple[Any, Redis] | None = getattr(app, name, None)
    if cached is None or cached[0] != of:
        with app.lanes_configuring:  # of two threads that come here one makes it, or a connection stays open
            cached = getattr(app, name, None)
            if cached is None or cached[0] != of:
                cached = (of, _new_client(app, reply_timeout))
                setattr(app, name, cached)
    return cached[1]


def _new_client(app: Any, reply_timeout: float | None) -> Redis:
    from redis import Redis

    try:
        return Redis.from_pool(connection_pool(app.amqp.lane_connection(), reply_timeout))
    except (TypeError, ValueError) as exc:
        raise BrokerUnreachable(url=shown_url(app), reason=_reason(exc)) from exc


def key_prefix(app: Any) -> str:
    """Return kombu's ``global_keyprefix``, which stands before every key of the broker; mostly empty."""
    return app.conf.broker_transport_options.get("global_keyprefix") or ""


def stream_key(app: Any, task_id: str) -> str:
    """Return the key of a job's stream."""
    return STREAM.of(key_prefix(app), task_id)


@contextmanager
def broker_errors(app: Any) -> Iterator[None]:
    """Say in one line that the broker is away.

    Raises:
        BrokerUnreachable: in place of redis-py's errors about the connection; `BrokerRefused` if it wants a password,
            `BrokerTakesNoWrites` if it is full or read-only.
        MaybeQueued: which is one, where a job was being queued.
    """
    from kombu.exceptions import OperationalError
    from redis.exceptions import (
        ConnectionError as NoConnection,
        InvalidResponse,
        ResponseError,
        TimeoutError as NoReply,
    )

    try:
        yield
    except PublishUncertain as exc:
        raise MaybeQueued(url=shown_url(app), reason=_reason(exc.__cause__ or exc)) from exc
    except (NoConnection, NoReply, InvalidResponse, ResponseError, OperationalError) as exc:
        causes = list(_causes(exc))
        kind = next(filter(None, map(_kind_of, causes)), BrokerUnreachable)
        if kind is BrokerUnreachable and isinstance(exc, ResponseError):
            raise  # it says something of the command
        raise kind(url=shown_url(app), reason=_reason(causes[-1])) from exc
    except RuntimeError as exc:
        # Celery's word for a result backend that is away; it says to restart, but the next call connects again.
        if "Retry limit exceeded" not in str(exc):
            raise
        raise BrokerUnreachable(url=shown_url(app), reason="the result backend does not answer") from exc


def _causes(exc: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, and what it comes from: kombu's own says little."""
    while exc is not None:
        yield exc
        exc = exc.__cause__


def _kind_of(exc: BaseException) -> type[BrokerUnreachable] | None:
    """Return what a server has that is there: another password, or no room for what is written; None: neither."""
    from redis.exceptions import AuthenticationError

    if isinstance(exc, AuthenticationError):
        return BrokerRefused
    return BrokerTakesNoWrites if takes_no_writes(exc) else None


def takes_no_writes(exc: BaseException) -> bool:
    """Return whether a server refuses whatever is written: it is full, without its replicas, or one itself."""
    from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError

    if isinstance(exc, OutOfMemoryError | ReadOnlyError):
        return True
    return isinstance(exc, ResponseError) and any(word in str(exc) for word in _NO_WRITES)


def _reason(exc: BaseException) -> str:
    """A server of another protocol answers with anything, a page of HTML for instance."""
    text = str(exc).partition(" : <")[0]  # what follows are the Sentinels that were asked, at length
    text = text.rpartition(" of pipeline caused error: ")[2]
    return " ".join(text.split())[:120].rstrip(".") or type(exc).__name__


def shown_url(app: Any) -> str:
    """Return the broker's URL without its password."""
    return shown(settings_of(app).broker_url)


def connection_pool(connection: Any, reply_timeout: float | None = None) -> ConnectionPool:
    """Return a pool of connections to the Redis that a connection of kombu's leads to, none of them opened.

    Args:
        connection: need not be open.
        reply_timeout: seconds to wait for an answer at most; None: as long as the connection would.
    """
    channel = _unopened_channel(connection)
    channel.max_connections = MAX_CONNECTIONS
    if reply_timeout is not None:
        channel.socket_timeout = min(reply_timeout, channel.socket_timeout or reply_timeout)
    pool: ConnectionPool = channel._get_pool()
    return pool


def _unopened_channel(connection: Any) -> Any:
    """Return a channel of kombu's that knows its options and has not been opened.

    kombu offers no other way to its connection parameters (5.7; pyproject.toml pins the minor release).
    """
    transport = connection.get_transport_cls()
    channel = object.__new__(transport.Channel)
    channel.connection = SimpleNamespace(client=connection, default_port=transport.default_port)
    options = connection.transport_options
    for name in channel.from_transport_options:
        if name in options:
            setattr(channel, name, options[name])
    return channel
