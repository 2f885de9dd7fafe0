"""kombu's Redis transports with channels that keep the lanes' promise."""

from __future__ import annotations

from typing import Any

from kombu.transport import redis as kombu_redis

from celery_app.broker.channel import Channel, SentinelChannel
from celery_app.broker.loop_wakeup import LoopWakeup


class Transport(kombu_redis.Transport):
    """One Redis or Valkey server; its event loop is woken when a slot is free."""

    Channel = Channel

    #: There is one only while an event loop runs: a publisher has nothing to wake.
    loop_wakeup: LoopWakeup | None = None

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Watch a wakeup of the loop besides kombu's own sockets."""
        super().register_with_event_loop(connection, loop)
        if self.client.rules is not None and self.client.rules.serving:
            self.loop_wakeup = LoopWakeup(loop)

    def close_connection(self, connection: Any) -> None:
        """Close the wakeup and the channels; the wakeup first, for a channel raises whose server is away."""
        if self.loop_wakeup is not None:
            self.loop_wakeup.close()
            self.loop_wakeup = None
        super().close_connection(connection)


class SentinelTransport(Transport, kombu_redis.SentinelTransport):
    """The same to whichever server Sentinel names."""

    Channel = SentinelChannel
