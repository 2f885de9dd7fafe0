"""The project's own Celery application, with the lanes."""

from celery import Celery

from celery_app import install

app = Celery("proj", include=["proj.tasks"])
install(app)
