"""The leases of this process, by broker: whoever holds a job is found here, and returns it at the process's end."""

from __future__ import annotations

import atexit
import threading
from typing import TYPE_CHECKING, Any

import redis

from celery_app.broker.lease import Leases
from celery_app.connections.redis_client import connection_pool
from celery_app.connections.urls import SENTINEL
from celery_app.process.forks import begin_in_each_process
from celery_app.process.heartbeat import REPLY_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Callable


class _Holders:
    """A forked process holds nothing, and must not return what its parent holds."""

    def __init__(self) -> None:
        begin_in_each_process(self)

    def begin(self) -> None:
        """Hold nothing."""
        self.by_broker: dict[tuple[Any, ...], Leases] = {}
        self.opening = threading.Lock()


_here = _Holders()


def leases_for(key: tuple[Any, ...], make: Callable[[], Leases]) -> Leases:
    """Return this process's leases at one broker, making them on the first call."""
    with _here.opening:
        if key not in _here.by_broker:
            _here.by_broker[key] = make()
        return _here.by_broker[key]


def leases_of(connection: Any, prefix: str) -> Leases:
    """Return this process's leases at the broker of one of kombu's connections."""
    # All Sentinels lead to one master, whichever a connection has come to.
    sentinels = connection.alt if connection.transport_cls == SENTINEL else ()
    key = (*(sentinels or (connection.hostname, connection.port)), connection.virtual_host, prefix)
    # A pool of its own: it outlives the channel, which goes when its connection does.
    return leases_for(
        key, lambda: Leases(redis.Redis(connection_pool=connection_pool(connection, REPLY_TIMEOUT)), prefix)
    )


def call_leases(prefix: str, client: redis.Redis) -> Leases:
    """Return this process's leases of calls that are made without a job: in a web process, or eagerly."""
    return leases_for(("calls", prefix, id(client)), lambda: Leases(client, prefix))


def holder_of(tag: str) -> Leases | None:
    """Return this process's leases that hold a job, or None: a pool's process holds none itself."""
    return next((leases for leases in list(_here.by_broker.values()) if leases.holds(tag)), None)


def holders() -> list[Leases]:
    """Return this process's leases at all brokers."""
    return list(_here.by_broker.values())


def requeue_everything() -> None:
    """Return all that this process still holds; for its end."""
    for leases in list(_here.by_broker.values()):
        leases.close()
    _here.by_broker.clear()


atexit.register(requeue_everything)
