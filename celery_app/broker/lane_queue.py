"""A lane as a queue of kombu's: how long it is, what stock producers left in its lists, and its end."""

from __future__ import annotations

from typing import Any

from celery_app.broker.arrivals import take_in
from celery_app.keys import ARRIVED
from celery_app.scheduler.scripts import PURGE, STATS

#: Jobs that `purge` drops in one step: the server is busy with them for some milliseconds.
MOST_PURGED = 250


class LaneQueue:
    """One lane at a channel's broker."""

    def __init__(self, channel: Any, name: str) -> None:
        self._client, self._prefix = channel.plain_client, channel.global_keyprefix
        self._channel, self._name = channel, name
        self._lists = [channel._q_for_pri(name, step) for step in channel.priority_steps]

    def size(self) -> int:
        """Return how many jobs are queued, those that wait for a time and shipped ones among them."""
        arguments = (self._prefix, self._channel.sep, self._channel.steps, self._name)
        ((queued, _, _, scheduled, _, shipped),) = STATS.run(self._client, (), arguments)
        return int(queued) + int(scheduled) + int(shipped)

    def purge(self) -> int:
        """Drop what is queued; return how many jobs that were."""
        purged, cursor = 0, b"0"
        while cursor:
            arguments = (self._prefix, self._name, MOST_PURGED, cursor, *self._lists, ARRIVED.of("", self._name))
            dropped, cursor = PURGE.run(self._client, (), arguments)
            purged += dropped
        return purged

    def take_in(self) -> None:
        """Take the next of what stock producers have left into the lane."""
        take_in(self._client, self._prefix, self._name, self._lists, self._step_of)

    def _step_of(self, message: dict[str, Any]) -> int:
        return int(self._channel.priority(self._channel._get_message_priority(message)))
