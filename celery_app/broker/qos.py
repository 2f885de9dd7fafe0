"""What a channel has delivered and not yet seen settled: kombu's prefetch limit on top of leases."""

from __future__ import annotations

import sys
from typing import Any

from kombu.transport import redis as kombu_redis, virtual

from celery_app.broker.claims import claim_of
from celery_app.broker.dead_letters import say_message_buried


class QoS(kombu_redis.QoS):
    """Settles and returns jobs through the process's leases; the claim has registered them already."""

    def append(self, message: Any, delivery_tag: str) -> None:
        """Count a message against the prefetch limit."""
        virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Settle a job that is done."""
        self.channel.leases.settle(*claim_of(delivery_tag))
        self._free_slot(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Return a job to the front of its lane, or put it among the dead letters."""
        if requeue:
            self.channel.leases.give_back(*claim_of(delivery_tag), went_wrong=True)
        else:
            self._say_rejected(delivery_tag)
            self.give_up(delivery_tag, "rejected")
        self._free_slot(delivery_tag)

    def _say_rejected(self, delivery_tag: str) -> None:
        message = self._delivered.get(delivery_tag)
        if message is not None:
            queue = (message.delivery_info or {}).get("routing_key", "?")
            say_message_buried(queue, message.headers, "rejected")

    def give_up(self, delivery_tag: str, reason: str) -> None:
        """Put a job among the dead letters; it still counts until it is acknowledged."""
        self.channel.leases.give_up(*claim_of(delivery_tag), reason)

    def restore_unacked(self, client: Any = None) -> list[Any]:
        """Return what nobody works on; what a pool is busy with stays held, and is settled when it is done."""
        self._flush()
        busy = _busy_tags()
        self.channel.leases.give_back_all(claim_of(each) for each in list(self._delivered) if each not in busy)
        self._delivered.clear()
        return []

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        """Return one job."""
        self.channel.leases.give_back(*claim_of(tag))

    def restore_visible(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: claims and leases bring back what was abandoned."""

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
