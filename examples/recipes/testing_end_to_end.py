"""Fixtures for tests with a real broker, real workers and a simulated API."""

# conftest.py
import json
import os
import subprocess
import sys
import urllib.request

import pytest

# -A proj with an application of your own
UP = [sys.executable, "-m", "celery", "-A", "celery_app", "lanes", "up", "--no-flower", "--json"]


@pytest.fixture(scope="session")
def stack():
    with subprocess.Popen(UP, stdout=subprocess.PIPE, text=True) as up:
        started = json.loads(up.stdout.readline())  # once everything is ready
        os.environ.update(started["environ"])  # before your Celery application is used for the first time
        yield started
        up.terminate()


@pytest.fixture
def api(stack):
    def control(**changes):
        body = json.dumps(changes).encode()
        request = urllib.request.Request(f"{stack['base_url']}/_control", body, method="PATCH")
        urllib.request.urlopen(request, timeout=5).close()

    control(latency=0, jitter=0, outage=False, spend_limit=False)
    return control  # api(spend_limit=True): how does the view look when the API refuses?
