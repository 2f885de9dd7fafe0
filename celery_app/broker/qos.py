"""What a channel has delivered and not yet seen acknowledged: kombu's prefetch limit on top of leases."""

from __future__ import annotations

import logging
import sys
from typing import Any

import redis
from kombu.transport import redis as kombu_redis, virtual

from celery_app.broker.claims import claim_of, is_delivery, queue_of
from celery_app.stopping.told import cold_shutdown, warm_shutdown

logger = logging.getLogger(__name__)


class QoS(kombu_redis.QoS):
    """Acknowledges and returns claimed jobs through the process's leases; what kombu has popped is kombu's business.

    A job of a lane that is rejected goes back to the lane's front, or to the dead letters. A message of any other queue
    that was claimed beside a lane goes where kombu would put it: to the back of its queue, or nowhere.
    """

    def append(self, message: Any, delivery_tag: str) -> None:
        """Count a message against the prefetch limit; a claim has registered it already."""
        if is_delivery(delivery_tag):
            virtual.QoS.append(self, message, delivery_tag)
        else:
            super().append(message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """End a job that is done."""
        if not is_delivery(delivery_tag):
            super().ack(delivery_tag)
            return
        claim = claim_of(delivery_tag)
        if self.channel.leases.holds(claim[0]):  # else its slot has done so
            self.channel.leases.ack(*claim)
        self._free_slot(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Return a job, or end it."""
        if not is_delivery(delivery_tag):
            super().reject(delivery_tag, requeue)
            return
        claim, in_lane = claim_of(delivery_tag), self._is_in_lane(delivery_tag)
        if requeue:
            stops = warm_shutdown() or cold_shutdown()  # so the job's process died of that
            self.channel.leases.requeue(*claim, went_wrong=in_lane and not stops, to_back=not in_lane)
        elif in_lane:
            self.dead_letter(delivery_tag, "rejected")
        else:
            self.channel.leases.ack(*claim)
        self._free_slot(delivery_tag)

    def dead_letter(self, delivery_tag: str, reason: str) -> None:
        """Put a job among the dead letters; it still counts until it is acknowledged."""
        self.channel.leases.dead_letter(*claim_of(delivery_tag), reason)

    def restore_unacked(self, client: Any = None) -> list[Any]:
        """Return what nobody works on; what a pool is busy with stays held, and is acked when it is done."""
        self._flush()
        claimed = {tag: message for tag, message in self._delivered.items() if is_delivery(tag)}
        busy = _busy_tags() if claimed else ()
        if claimed:
            self.channel.leases.requeue_all(claim_of(tag) for tag in claimed if tag not in busy)
        for tag in claimed:
            del self._delivered[tag]
        if self._delivered:  # else kombu would connect all the same, with a connection that may be the one just lost
            super().restore_unacked(client)
        return []

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        """Return one job."""
        if is_delivery(tag):
            self.channel.leases.requeue(*claim_of(tag))
        else:
            super().restore_by_tag(tag, client, leftmost)

    def restore_visible(self, *args: Any, **kwargs: Any) -> None:
        """Bring back what stock workers have left; a server that cannot be written to must not end a lane's worker."""
        if self.channel.rules is None or not self.channel.rules.serving:
            super().restore_visible(*args, **kwargs)
            return
        try:
            super().restore_visible(*args, **kwargs)
        except redis.ResponseError as exc:
            logger.debug("what stock workers have left is not brought back for now: %s", exc)

    def _is_in_lane(self, delivery_tag: str) -> bool:
        message = self._delivered.get(delivery_tag)
        return message is None or self.channel.is_lane(queue_of(message.properties, message.delivery_info))

    def _free_slot(self, delivery_tag: str) -> None:
        virtual.QoS.ack(self, delivery_tag)
        self.channel.wake()


def _busy_tags() -> set[str]:
    """Return the tags of the jobs that this process's Celery worker, if it is one, has given to its pool for good.

    Threads start whatever they were given; processes drop what had not been sent to them when the connection was lost.
    """
    state = sys.modules.get("celery.worker.state")
    if state is None:
        return set()
    processes = "celery.concurrency.asynpool" in sys.modules
    requests = tuple(state.active_requests if processes else state.reserved_requests)
    return {request.message.delivery_tag for request in requests if request.message is not None}
