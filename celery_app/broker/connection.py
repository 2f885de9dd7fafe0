"""A broker connection that uses the lanes' transports wherever kombu would use its own for Redis."""

from __future__ import annotations

from typing import Any

from kombu import Connection
from kombu.connection import ConnectionPool, PooledConnection

#: The URL's scheme -> the transport; the scheme stays what it is, because Flower and others read it.
_TRANSPORTS = {"redis": "Transport", "rediss": "Transport", "sentinel": "SentinelTransport"}


class _LaneTransportMixin:
    """Chooses the transport."""

    def get_transport_cls(self) -> Any:
        """Return the transport's class; it brings redis-py along, so it is imported on the first connection."""
        name = _TRANSPORTS.get(self.transport_cls)  # type: ignore[attr-defined]
        if name is None:
            return super().get_transport_cls()  # type: ignore[misc]
        from celery_app.broker import transport

        return getattr(transport, name)


class LanePooledConnection(_LaneTransportMixin, PooledConnection):
    """A connection out of a pool: the one that jobs are published through."""


class LaneConnectionPool(ConnectionPool):
    """A pool of connections with the lanes' transports; kombu's own would make them kombu's."""

    def new(self) -> LanePooledConnection:
        """Return one more connection."""
        return LanePooledConnection(self, **dict(self.connection._info(resolve=False)))


class LaneConnection(_LaneTransportMixin, Connection):
    """kombu's connection with `celery_app.broker.transport`."""

    def Pool(self, limit: int | None = None, **kwargs: Any) -> LaneConnectionPool:  # noqa: N802 - kombu's name
        """Return a pool of such connections."""
        return LaneConnectionPool(self, limit, **kwargs)
