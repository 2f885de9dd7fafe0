"""A project with lanes on its own Celery application; ``celery -A kit.project`` runs its workers."""

import json
import os

from celery import Celery
from kombu import Queue

from celery_app import install
from kit.jobs import put_jobs_on
from tasks import LaneTask

app = Celery("kit", set_as_current=False)
app.conf.update(
    task_queues=[Queue("own", routing_key="own")],
    worker_hijack_root_logger=True,
    # Its tasks are plain ones; what the lanes' own tasks bring along, this project has chosen for all of its own.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    result_backend=os.environ.get("CELERY_BROKER_URL"),
    **json.loads(os.environ.get("KIT_CONF", "{}")),
)
install(app)
put_jobs_on(app, LaneTask)
