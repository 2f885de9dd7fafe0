"""The process's own connection to the broker's Redis, for whatever is no message."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from celery_app.connections.urls import shown
from celery_app.errors import BrokerRefused, BrokerUnreachable, MaybeQueued
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
        BrokerUnreachable: in place of redis-py's errors about the connection; `BrokerRefused` if it wants a password.
        MaybeQueued: which is one, where a job was being queued.
    """
    from kombu.exceptions import OperationalError
    from redis.exceptions import ConnectionError as NoConnection, InvalidResponse, TimeoutError as NoReply

    try:
        yield
    except PublishUncertain as exc:
        raise MaybeQueued(url=shown_url(app), reason=_reason(exc.__cause__ or exc)) from exc
    except (NoConnection, NoReply, InvalidResponse, OperationalError) as exc:
        kind = BrokerRefused if _is_refusal(exc) else BrokerUnreachable
        raise kind(url=shown_url(app), reason=_reason(exc)) from exc
    except RuntimeError as exc:
        # Celery's word for a result backend that is away; it says to restart, but the next call connects again.
        if "Retry limit exceeded" not in str(exc):
            raise
        raise BrokerUnreachable(url=shown_url(app), reason="the result backend does not answer") from exc


def _is_refusal(exc: BaseException | None) -> bool:
    """Return whether a server is there and wants another password; kombu's error says so in what it comes from."""
    from redis.exceptions import AuthenticationError

    while exc is not None:
        if isinstance(exc, AuthenticationError):
            return True
        exc = exc.__cause__
    return False


def _reason(exc: BaseException) -> str:
    """A server of another protocol answers with anything, a page of HTML for instance."""
    text = str(exc).partition(" : <")[0]  # what follows are the Sentinels that were asked, at length
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
