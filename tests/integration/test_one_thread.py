"""A worker's threads, as a job sees them."""

import os

import pytest
from kit.worker import worker

#: Celery 5.7 stores a result by a command that redis-py 8 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

IN_TIME_S = 30.0

PROJECT = """
import threading
from celery import shared_task
from celery_app import create_app
from celery_app.metrics.events import JobEvent, emit
from tasks.base import LaneTask

app = create_app()

@shared_task(base=LaneTask, bind=True, name="threads")
def threads(self):
    emit(JobEvent(kind="called", lane="critical", task="threads"))
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("lanes-"))
"""


def test_a_worker_has_one_thread_for_all_that_is_done_again_and_again(lanes_app, broker_url, tmp_path):
    """With a job in hand, events counted, its presence shown and what has ended looked for."""
    (tmp_path / "looking.py").write_text(PROJECT)
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    env = {"PYTHONPATH": path, "CELERY_BROKER_URL": broker_url, "EZAI_API_KEY": "k"}
    with worker(tmp_path, "-Q", "critical", "-c", "2", app="looking", **env):
        seen = lanes_app.send_task("threads", queue="critical").get(timeout=IN_TIME_S)
    # The first is the event loop of the calls, the last sleeps until the worker is told to stop.
    assert seen == ["lanes-calls", "lanes-heartbeat", "lanes-stopper"]
