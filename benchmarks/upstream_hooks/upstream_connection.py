"""A pytest plugin: whatever a suite connects with `kombu.Connection` goes through the lanes' connection."""

from __future__ import annotations

import kombu
import kombu.connection

from celery_app.broker.connection import LaneConnection

kombu.connection.Connection = LaneConnection  # type: ignore[misc]
kombu.Connection = LaneConnection  # type: ignore[misc]
