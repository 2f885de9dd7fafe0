"""A process of Flower, from the moment that it has read its options until its pages can be asked for."""

from __future__ import annotations

import logging
from typing import Any

from flower.app import Flower

from celery_app.configuration.overriding import override
from celery_app.connections.urls import MASTER
from celery_app.flower.lane_column import recognise, show_lanes
from celery_app.flower.pages import add_pages
from celery_app.flower.protection import protect


class _NoArguments(logging.Filter):
    """At DEBUG, Flower writes the arguments of a task that is sent through its API into its log."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno > logging.DEBUG


def prepare_flower(app: Any) -> None:
    """Have the Flower that is being made know the lanes of an application.

    Args:
        app: a Celery application with lanes, whose modules Flower has just had imported. Its options are read by then,
            its pages are not there yet.
    """
    _reach_broker(app)
    show_lanes()
    logging.getLogger("flower.api.tasks").addFilter(_NoArguments())
    start_http_server = Flower.start_http_server

    def start(flower: Any) -> Any:
        protect(flower.options, has_only_lanes=getattr(app, "has_only_lanes", False))
        add_pages(flower, app)
        recognise(flower.events.state)
        return start_http_server(flower)

    Flower.start_http_server = start


def _reach_broker(app: Any) -> None:
    """Flower's page of queues makes a connection of its own, and reads neither Sentinel's master nor TLS in the URL."""
    with app.connection_for_write() as connection:
        options, encryption = connection.transport_options, connection.ssl
    if MASTER in options:
        override(app, {"broker_transport_options": {**app.conf.broker_transport_options, MASTER: options[MASTER]}})
    if encryption and not app.conf.broker_use_ssl:
        override(app, {"broker_use_ssl": encryption})
