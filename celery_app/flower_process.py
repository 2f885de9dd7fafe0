"""A process of Flower: its page of queues makes a connection of its own, out of Celery's configuration."""

from __future__ import annotations

from typing import Any

import click

from celery_app.broker_urls import MASTER
from celery_app.overriding import override


def prepare_flower(app: Any) -> None:
    """Where this process is ``celery … flower``, set in the configuration what it would not find in the URL."""
    context = click.get_current_context(silent=True)
    if context is None or context.info_name != "flower":
        return
    with app.connection_for_write() as connection:
        options, encryption = connection.transport_options, connection.ssl
    if MASTER in options:
        override(app, {"broker_transport_options": {**app.conf.broker_transport_options, MASTER: options[MASTER]}})
    if encryption and not app.conf.broker_use_ssl:
        override(app, {"broker_use_ssl": encryption})
