"""The site's Celery application: the documented one, with a task class of the site's own."""

from __future__ import annotations

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")

app = Celery("mysite", task_cls="mysite.audit:AuditedTask")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()

if os.environ.get("WITH_LANES"):
    from celery_app import install

    install(app)
