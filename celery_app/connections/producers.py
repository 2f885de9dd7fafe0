"""Jobs for lanes leave through connections of their own, and not through the application's."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from kombu.exceptions import OperationalError
from kombu.pools import ProducerPool

from celery_app.broker.connection import LanePooledConnection

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Connections of a process at most that jobs leave through, where the application says nothing: Celery's own default.
POOL_LIMIT = 10


class LaneProducers:
    """The producers of one application's lanes, made on first use, and anew where its broker is another one."""

    def __init__(self, amqp: Any) -> None:
        self._amqp = amqp
        self._pool: ProducerPool | None = None
        self._pool_of: Any = None
        self._opening = threading.Lock()

    @contextmanager
    def instead_of(self, producer: Any) -> Iterator[Any]:
        """Give the producer to send a job for a lane with: one of the lanes' own in place of one out of the pool."""
        connection = producer.connection
        if connection is None:
            raise OperationalError("the connection that the job was to leave through is closed")
        is_pooled = isinstance(connection, LanePooledConnection) and connection.rules is self._amqp.rules
        if is_pooled and getattr(producer._batch_local, "current", None) is None:  # noqa: SLF001 - no other way to see it
            with self._in_force().acquire(block=True) as own:
                yield own
        else:
            yield producer  # whoever brings a connection, or collects a batch, knows where to

    def close(self) -> None:
        """Close them."""
        with self._opening:
            self._close()

    def _close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.force_close_all()
            pool.connections.force_close_all()

    def _in_force(self) -> ProducerPool:
        conf = self._amqp.app.conf
        of = (conf.broker_write_url, repr(conf.broker_transport_options))
        with self._opening:
            if self._pool is None or self._pool_of != of:
                self._close()  # it leads to where the lanes were before
                limit = conf.broker_pool_limit or POOL_LIMIT
                self._pool = ProducerPool(self._amqp.lane_connection().Pool(limit), limit=limit)
                self._pool_of = of
            return self._pool
