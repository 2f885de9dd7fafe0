"""A broker connection that uses the lanes' transports wherever kombu would use its own for Redis."""

from __future__ import annotations

from typing import Any

from kombu import Connection

#: The URL's scheme -> the transport; the scheme stays what it is, because Flower and others read it.
_TRANSPORTS = {"redis": "Transport", "rediss": "Transport", "sentinel": "SentinelTransport"}


class LaneConnection(Connection):
    """kombu's connection with `celery_app.broker.transport`."""

    def get_transport_cls(self) -> Any:
        """Return the transport's class; it brings redis-py along, so it is imported on the first connection."""
        name = _TRANSPORTS.get(self.transport_cls)
        if name is None:
            return super().get_transport_cls()
        from celery_app.broker import transport

        return getattr(transport, name)
