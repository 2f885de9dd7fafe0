"""Lane tasks in a Django project are Django tasks: they can wait for the transaction that made their data."""

import os
import subprocess
import sys

#: Seconds for a process that imports Django and Celery, on a loaded machine.
IN_TIME_S = 60.0

SETTINGS = """\
SECRET_KEY = "test"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
"""

PROJECT = """\
import django
from celery import Celery, shared_task
from django.db import transaction

from celery_app import install

app = Celery("mysite")
app.config_from_object("django.conf:settings", namespace="CELERY")
install(app)
django.setup()

from celery_app.testing import in_process
from tasks import LaneTask, create_message


@shared_task(base=LaneTask)
def receipt(order):
    return order


PARAMS = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}
with in_process() as lanes:
    with transaction.atomic():
        receipt.delay_on_commit(7)
        create_message.delay_on_commit(**PARAMS)
        create_message.apply_async_on_commit(kwargs=PARAMS, queue="critical")
        print(len(lanes.jobs()))
    print(*sorted(job.lane for job in lanes.jobs()))
"""


def test_a_lane_task_waits_for_the_transaction(tmp_path):
    """`delay_on_commit` is there on `create_message` and on a project's lane tasks, and sends nothing before."""
    (tmp_path / "site_settings.py").write_text(SETTINGS)
    (tmp_path / "project.py").write_text(PROJECT)
    environ = {**os.environ, "DJANGO_SETTINGS_MODULE": "site_settings", "PYTHONPATH": str(tmp_path)}

    done = subprocess.run(
        [sys.executable, "project.py"],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=IN_TIME_S,
        check=False,
    )

    assert (done.stdout, done.returncode) == ("0\ncritical normal normal\n", 0), done.stderr
