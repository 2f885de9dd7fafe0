"""kombu's Redis channel with another way in and out of the lanes; any other queue is kombu's own."""

from __future__ import annotations

from typing import Any

import redis
from kombu.transport import redis as kombu_redis

from celery_app.broker.claiming import ClaimingChannel
from celery_app.broker.lane_queue import LaneQueue
from celery_app.broker.publisher import LanePublishBatch, Publisher
from celery_app.broker.qos import QoS
from celery_app.broker.refused_writes import coming_back, full_disk_is_away
from celery_app.broker.rules import LANE_NAMES


class Channel(ClaimingChannel):
    """Claims from lanes, and puts into lanes with a limit instead of pushing."""

    QoS = QoS

    def wake(self) -> None:
        """Have the event loop look for work: a slot is free."""
        loop_wakeup = self.connection.loop_wakeup if self.connection is not None else None
        if loop_wakeup is not None:
            loop_wakeup.wake()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Connect; a worker comes back to a server that refuses even that, as one does whose disk is full."""
        with full_disk_is_away():
            super().__init__(*args, **kwargs)

    def _size(self, queue: str) -> int:
        return LaneQueue(self, queue).size() if self.is_lane(queue) else int(super()._size(queue))

    def _purge(self, queue: str) -> int:
        return LaneQueue(self, queue).purge() if self.is_lane(queue) else int(super()._purge(queue))

    def queue_delete(self, queue: str, if_unused: bool = False, if_empty: bool = False, **kwargs: Any) -> None:
        """Delete a queue; kombu looks for what is left of it in its lists only."""
        if if_empty and self.is_lane(queue) and self._size(queue):
            return
        super().queue_delete(queue, if_unused, if_empty, **kwargs)

    def _delete(self, queue: str, *args: Any, **kwargs: Any) -> None:
        """Delete a queue; of a lane, what waits elsewhere than in its lists, too."""
        if self.is_lane(queue):
            self._purge(queue)
        super()._delete(queue, *args, **kwargs)

    def _queue_bind(self, *args: Any, **kwargs: Any) -> None:
        """Bind a queue; to a worker for lanes, a server that refuses to write is one to come back to, not its end."""
        if self.rules is None or not self.rules.serving:
            super()._queue_bind(*args, **kwargs)
            return
        with coming_back():
            super()._queue_bind(*args, **kwargs)

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        if not self.is_lane(queue):
            if self.connection is None and queue in LANE_NAMES:
                raise redis.ConnectionError("the channel is closed")  # kombu opens another one, and repeats
            super()._put(queue, message, **kwargs)
            return
        batch = kwargs.get("_publish_batch")
        publisher = Publisher(self, queue, message)
        if batch is None:
            publisher.put(self.plain_client.connection_pool)
        else:
            batch.add_job(publisher)

    def create_publish_batch(self, max_size: int) -> LanePublishBatch:
        """Create a publish batch that knows of full lanes."""
        return LanePublishBatch(self, max_size)


class SentinelChannel(Channel, kombu_redis.SentinelChannel):
    """The same to whichever server Sentinel names."""

    from_transport_options = (*kombu_redis.SentinelChannel.from_transport_options, "lanes")
