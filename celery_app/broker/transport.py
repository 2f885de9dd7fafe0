"""kombu's Redis transports with channels that keep the lanes' promise."""

from __future__ import annotations

from typing import Any

from kombu.transport import redis as kombu_redis

from celery_app.broker.channel import Channel, SentinelChannel
from celery_app.broker.waker import Waker


class LaneTransportMixin:
    """Has the event loop woken when a slot is free."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Open the waker along with the transport."""
        self.waker = Waker()
        self._loop: Any = None
        super().__init__(*args, **kwargs)

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Watch the waker besides kombu's own sockets."""
        super().register_with_event_loop(connection, loop)  # type: ignore[misc]
        self._loop = loop
        loop.add_reader(self.waker.fileno(), self.waker.drain)

    def close_connection(self, connection: Any) -> None:
        """Close the waker along with the channels."""
        super().close_connection(connection)  # type: ignore[misc]
        if self._loop is not None:
            self._loop.remove_reader(self.waker.fileno())
            self._loop = None
        self.waker.close()


class Transport(LaneTransportMixin, kombu_redis.Transport):  # type: ignore[misc]
    """One Redis or Valkey server."""

    Channel = Channel


class SentinelTransport(LaneTransportMixin, kombu_redis.SentinelTransport):  # type: ignore[misc]
    """Whichever server Sentinel names."""

    Channel = SentinelChannel
