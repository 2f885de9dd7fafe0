"""A Django project's settings module, in a process of its own as Django sets it up."""

import json
import os
import subprocess
import sys
from pathlib import Path

#: Seconds for a process to start and end, on a loaded machine.
IN_TIME_S = 60.0

SETTINGS = """\
SECRET_KEY = "x"
INSTALLED_APPS = ["django.contrib.contenttypes"]
USE_TZ = True
CELERY_EZAI_API_KEY = "the-key"
CELERY_EZAI_LIMITS = {"*haiku*": {"rpm": 1200}}
CELERY_LANES = {"batch": {"capacity": 500, "deadline": 3600}, "critical": {"deadline": None}}
CELERY_LANES_NORMAL_ATTEMPTS = 2
LANES = ["left", "right"]  # of a road; not ours
"""
APPLICATION = """\
import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "proj.settings")
app = Celery("proj")
app.config_from_object("django.conf:settings", namespace="CELERY")

from celery_app import install

install(app)
"""
LOOK = """\
import json

import django

from proj.celery import app

django.setup()

from django.test.utils import override_settings

from celery_app.lanes import BATCH
from celery_app.settings import settings_of


def look():
    found = settings_of(app)
    return [[lane.capacity, lane.deadline, lane.attempts] for lane in found.lanes] + [found.api_key(BATCH)]


seen = [look()]
with override_settings(CELERY_LANES_BATCH_CAPACITY=7, CELERY_EZAI_API_KEY="a-test's"):
    seen.append(look())
seen.append(look())
print(json.dumps(seen))
"""


def run(folder: Path, variables: dict[str, str], *arguments: str, more: str = "") -> subprocess.CompletedProcess[str]:
    """Run Python where the project is, with nothing configured but these variables, and `more` in its celery.py."""
    package = folder / "proj"
    package.mkdir()
    for name, text in {"__init__.py": "", "settings.py": SETTINGS, "celery.py": APPLICATION + more}.items():
        (package / name).write_text(text)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("CELERY_", "EZAI_", "LANES_"))}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=clean | variables,
        capture_output=True,
        text=True,
        timeout=IN_TIME_S,
        check=False,
    )


def test_djangos_settings_are_the_lanes_settings(tmp_path):
    """The settings module says what a variable could say, and a test's `override_settings` is seen while it holds."""
    result = run(tmp_path, {"LANES_PORT": "tcp://10.96.0.10:6379", "LANES_NORMAL_DEADLINE": "9"}, "-c", LOOK)

    assert result.returncode == 0, result.stderr
    usual = [[1_000, None, 3], [10_000, 9, 2], [500, 3600, 8], "the-key"]
    overridden = [*usual[:2], [7, 3600, 8], "a-test's"]
    assert json.loads(result.stdout) == [usual, overridden, usual]


def test_a_command_tells_every_mistake_in_one_line(tmp_path, broker_url):
    """Wrong settings and wrong variables come together, each by its name."""
    variables = {"CELERY_BROKER_URL": broker_url, "EZAI_RPM": "the-secret", "EZAI_APIKEY": "the-secret"}
    command = ["-m", "celery", "-A", "proj", "lanes", "status"]

    result = run(tmp_path, variables, *command, more="app.conf.lanes_batch_floor = 'the-secret'\n")

    assert (result.returncode, result.stderr.count("\n")) == (1, 1), result.stderr
    for name in ("EZAI_RPM: ", "EZAI_APIKEY is unknown", "the setting lanes_batch_floor: "):
        assert name in result.stderr
    assert "the-secret" not in result.stderr
