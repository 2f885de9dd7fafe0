"""A connection to the broker's Redis for one coroutine."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from celery_app.connections.redis_client import redis_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis import asyncio as aioredis

#: What of kombu's connection parameters a connection of redis.asyncio takes, too; and all that begins with ``ssl_``.
_SHARED = frozenset(
    {
        "client_name",
        "credential_provider",
        "db",
        "host",
        "password",
        "path",
        "port",
        "socket_keepalive",
        "socket_keepalive_options",
        "username",
    }
)

#: Seconds to connect: the broker has just answered another connection, so this is for an event loop that is busy.
CONNECT_TIMEOUT = 2.5


@asynccontextmanager
async def connected(app: Any) -> AsyncIterator[aioredis.Redis]:
    """Open a connection for the block: by the same parameters as `redis_client`, without a key prefix.

    One for each coroutine that waits, as each thread has one. It is not kept: an event loop may end at any time
    (Django runs one for each request of an async view under WSGI), and its connections would stay behind.
    """
    from redis import asyncio as aioredis

    pool: Any = redis_client(app).connection_pool
    arguments = await _parameters(pool)
    own = aioredis.ConnectionPool(connection_class=_class_like(pool.connection_class), max_connections=1, **arguments)
    client = aioredis.Redis.from_pool(own)
    try:
        yield client
    finally:
        await client.aclose()


async def _parameters(pool: Any) -> dict[str, Any]:
    parameters = pool.connection_kwargs
    shared = {
        name: value
        for name, value in parameters.items()
        if (name in _SHARED or name.startswith("ssl_")) and value is not None
    }
    shared["socket_connect_timeout"] = CONNECT_TIMEOUT
    if hasattr(pool, "get_master_address"):  # Sentinel's
        shared["host"], shared["port"] = await asyncio.to_thread(pool.get_master_address)
    return shared


def _class_like(kind: type) -> Any:
    """Return the class of redis.asyncio that connects as one of redis-py's does."""
    import redis
    from redis import asyncio as aioredis

    if issubclass(kind, redis.SSLConnection):
        return aioredis.SSLConnection
    if issubclass(kind, redis.UnixDomainSocketConnection):
        return aioredis.UnixDomainSocketConnection
    return aioredis.SSLConnection if "SSL" in kind.__name__ else aioredis.Connection
