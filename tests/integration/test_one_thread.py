"""A worker's threads, as a job sees them."""

import os
import subprocess
import sys

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


IN_PROCESS = """
import sys, threading
from celery import shared_task
from celery.contrib.testing.worker import start_worker
from celery_app import create_app
from tasks.base import LaneTask

app = create_app()
held, begun = threading.Event(), threading.Event()

@shared_task(base=LaneTask, name="held")
def hold():
    begun.set()
    held.wait(30)

for _ in range(2):
    with start_worker(app, pool="threads", queues="critical", perform_ping_check=False, shutdown_timeout=30) as worker:
        done = threading.Event()
        worker.lanes_stopper._wishes.put(lambda: 1 / 0)
        worker.lanes_stopper._wishes.put(done.set)
        assert done.wait(30), "one wish that fails ends the others"
        (stopper,) = [thread for thread in threading.enumerate() if thread.name == "lanes-stopper"]
        hold.apply_async(queue="critical")
        assert begun.wait(30), "a job runs in each worker"
        threading.Timer(2.0, held.set).start()
    stopper.join(30)
    assert not stopper.is_alive()
    assert "end_anyway" not in {frame.f_code.co_name for frame in sys._current_frames().values()}
    held.clear(), begun.clear()
print("the process goes on")
"""


def test_a_worker_in_a_process_leaves_no_stopper_behind(broker_url):
    """Its thread lives through a wish that fails, ends with the worker and not the process, and the next one works."""
    env = {**os.environ, "CELERY_BROKER_URL": broker_url, "EZAI_API_KEY": "k"}
    ended = subprocess.run(
        [sys.executable, "-c", IN_PROCESS], env=env, timeout=120, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, "the process goes on\n"), ended.stderr[-2000:]
