"""The project's own Celery application, with the lanes."""

import os

from celery import Celery

from celery_app import install

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "proj.settings")

app = Celery("proj", include=["proj.tasks"])
app.config_from_object("django.conf:settings", namespace="CELERY")
install(app)
