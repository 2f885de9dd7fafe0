"""kombu's Redis transports with channels that keep the lanes' promise."""

from __future__ import annotations

from typing import Any

from kombu.transport import redis as kombu_redis

from celery_app.broker.channel import Channel, SentinelChannel
from celery_app.broker.waker import Waker


class Transport(kombu_redis.Transport):
    """One Redis or Valkey server; its event loop is woken when a slot is free."""

    Channel = Channel

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Open the waker along with the transport."""
        self.waker = Waker()
        self._loop: Any = None
        super().__init__(*args, **kwargs)

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Watch the waker besides kombu's own sockets."""
        super().register_with_event_loop(connection, loop)
        self._loop = loop
        loop.add_reader(self.waker.fileno(), self.waker.drain)

    def close_connection(self, connection: Any) -> None:
        """Close the waker along with the channels."""
        super().close_connection(connection)
        if self._loop is not None:
            self._loop.remove_reader(self.waker.fileno())
            self._loop = None
        self.waker.close()


class SentinelTransport(Transport, kombu_redis.SentinelTransport):
    """The same to whichever server Sentinel names."""

    Channel = SentinelChannel
