"""A pytest plugin: whatever a suite connects with `kombu.Connection` is a connection of an application with lanes."""

from __future__ import annotations

import kombu
import kombu.connection
from celery import Celery

from celery_app import install
from celery_app.broker.connection import LaneConnection, LanePooledConnection

app = Celery("upstream", set_as_current=False)
install(app)

LaneConnection.rules = LanePooledConnection.rules = app.amqp.rules
kombu.connection.Connection = LaneConnection  # type: ignore[misc]
kombu.Connection = LaneConnection  # type: ignore[misc]
