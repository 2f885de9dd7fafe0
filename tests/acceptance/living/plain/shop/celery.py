"""The shop's Celery application."""

from __future__ import annotations

import os

from celery import Celery

app = Celery("shop", include=["shop.tasks"])
app.config_from_object("shop.settings")

if os.environ.get("WITH_LANES"):
    from celery_app import install

    install(app)
