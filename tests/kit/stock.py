"""The same jobs on stock Celery, configured as its documentation advises: what the lanes are measured against."""

import json
import os

from celery import Celery
from kombu import Exchange, Queue

from kit.jobs import put_jobs_on

app = Celery("kit", broker=os.environ.get("CELERY_BROKER_URL"), set_as_current=False)
app.conf.update(
    broker_transport_options={
        "queue_order_strategy": "priority",
        "visibility_timeout": 4,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        "max_connections": 64,
    },
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_queues=[
        Queue(name, exchange=Exchange(name, type="direct"), routing_key=name)
        for name in ("critical", "normal", "batch")
    ],
    worker_prefetch_multiplier=1,
    **{"worker_pool": "threads", "worker_send_task_events": False, **json.loads(os.environ.get("KIT_CONF", "{}"))},
)
put_jobs_on(app)
