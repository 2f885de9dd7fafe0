"""Redis is told that a worker was told to stop: if it is killed now, none of its jobs is to blame."""

from __future__ import annotations

from celery_app.broker.holders import holders
from celery_app.broker.lease import RETRY_EVERY
from celery_app.keys import LEAVING, LEAVING_KEPT
from celery_app.process.heartbeat import HEARTBEAT, Entry


def say_leaving() -> None:
    """Say so at each broker, as soon as that is possible."""
    HEARTBEAT.wake(_saying, at_once=True)


def _say() -> bool:
    for leases in holders():
        leases.client.set(LEAVING.of(leases.prefix, leases.process), "", ex=LEAVING_KEPT)
    return False


_saying = Entry("say that this worker stops", RETRY_EVERY, _say)
