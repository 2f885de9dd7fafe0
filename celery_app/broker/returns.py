"""What a running task does with its own job: have it return, or dead-letter it."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import redis

from celery_app.broker.claims import claim_of
from celery_app.broker.holders import holder_of
from celery_app.broker.lease import RETRY_EVERY, TRANSIENT, Leases
from celery_app.scheduler.scripts import SETTLE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

#: Seconds that a pool's process waits for a broker that is away; the worker keeps the job's lease alive meanwhile.
POOL_RETRY_FOR = 300.0


def requeue(
    app: Any,
    properties: Mapping[str, Any],
    *,
    delay: float,
    retries: int,
    facts: Mapping[str, str | float] | None = None,
) -> bool:
    """Return a task's own job to its place in its line.

    Args:
        app: the Celery application.
        properties: the task's ``request.properties``.
        delay: seconds before which it must not start again; they are waited for in the broker.
        retries: how often it has been tried.
        facts: what else is to be known of it, see `Leases.requeue`.

    Returns:
        False if its lease was over meanwhile: the job is elsewhere, and nothing has been done.
    """
    return _with_leases(
        app,
        properties,
        lambda leases, tag, token: leases.requeue(tag, token, delay=delay, retries=retries, facts=facts),
    )


def dead_letter(app: Any, properties: Mapping[str, Any], reason: str, retries: int) -> bool:
    """Put a task's own job, of whose end has been told, among the dead letters; the rest as with `requeue`."""
    return _with_leases(
        app, properties, lambda leases, tag, token: leases.dead_letter(tag, token, reason, retries, told=True)
    )


def settle_later(app: Any, claim: tuple[str, str], settling: tuple[Any, ...]) -> None:
    """Settle a call as soon as that is possible, and before its claim is ended; see `Debts`."""
    leases = holder_of(claim[0])
    if leases is not None:
        leases.debts.owe(*claim, settling)
        return
    with suppress(*TRANSIENT):  # the estimate is lost, the answer must not be
        _from_pool_process(app, lambda leases: bool(SETTLE.run(leases.client, (), settling)))


def _with_leases(app: Any, properties: Mapping[str, Any], end: Callable[[Leases, str, str], bool]) -> bool:
    tag, token = claim_of(properties["delivery_tag"])
    leases = holder_of(tag)
    if leases is not None:
        return end(leases, tag, token)
    return _from_pool_process(app, lambda leases: end(leases, tag, token))


def _from_pool_process(app: Any, end: Callable[[Leases], bool]) -> bool:
    """A pool's process has no leases of its own and no thread to repeat what failed, so it waits itself."""
    stop_at = time.monotonic() + POOL_RETRY_FOR
    while True:
        try:
            with cast("AbstractContextManager[Any]", app.connection_for_write()) as connection:
                channel = connection.default_channel
                client = redis.Redis(connection_pool=channel.pool)
                return end(Leases(client, channel.global_keyprefix, repeats=False))
        except TRANSIENT:
            if time.monotonic() > stop_at:
                raise
            time.sleep(RETRY_EVERY)
