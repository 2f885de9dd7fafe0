"""A process of Flower: its page of queues makes a connection of its own, and counts kombu's lists."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from celery_app.broker_urls import MASTER
from celery_app.overriding import override


def prepare_flower(app: Any) -> None:
    """Where this process is ``celery … flower``, have its page of queues reach the broker and count the lanes' jobs."""
    context = click.get_current_context(silent=True)
    if context is None or context.info_name != "flower":
        return
    with app.connection_for_write() as connection:
        options, encryption = connection.transport_options, connection.ssl
    if MASTER in options:
        override(app, {"broker_transport_options": {**app.conf.broker_transport_options, MASTER: options[MASTER]}})
    if encryption and not app.conf.broker_use_ssl:
        override(app, {"broker_use_ssl": encryption})
    _count_lanes(app)


def _count_lanes(app: Any) -> None:
    """Lanes are no lists, and Flower (2.2) has no other way to say how long a queue is than the method of its class."""
    from flower.utils.broker import RedisBase

    own = RedisBase.queues

    async def queues(self: Any, names: Any) -> Any:
        found = await own(self, names)
        depths = await asyncio.to_thread(_depths, app)
        return [{**each, "messages": depths.get(each["name"], each["messages"])} for each in found]

    RedisBase.queues = queues


def _depths(app: Any) -> dict[str, int]:
    """Return the jobs of each lane that are queued or wait for a time."""
    from celery_app.broker.lane_stats import lane_stats
    from celery_app.connection import key_prefix, redis_client
    from celery_app.settings import settings_of

    counted = lane_stats(redis_client(app), settings_of(app).lanes, key_prefix(app))
    return {name: lane.depth + lane.returning for name, lane in counted.items()}
