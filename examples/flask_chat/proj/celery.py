"""The project's own Celery application, with the lanes."""

import os

from celery import Celery

from celery_app import install

# A pipeline may wait minutes for room in a full lane, a request may not.
os.environ.setdefault("LANES_BATCH_SUBMIT_WAIT", "2")

app = Celery("proj", include=["proj.tasks"])
install(app)
