"""No two machines' clocks are compared: a web server whose clock is wrong loses nothing."""

import time
from datetime import UTC, datetime
from typing import Any

import pytest
from kit.client_rig import params
from kit.script_client import ScriptClient

from celery_app.budget.terms import write_terms
from celery_app.connections.redis_client import redis_client
from celery_app.settings import settings_of
from tasks import create_message

#: Seconds by which the tests allow for a slow machine.
SLOW = 10.0


@pytest.fixture(params=[-60.0, 60.0, 86_400.0])
def wrong_by(request, monkeypatch):
    """Seconds by which the publisher's clock is wrong."""
    real, by = time.time, float(request.param)
    monkeypatch.setattr(time, "time", lambda: real() + by)
    return by


def claimed(app: Any) -> Any:
    """Claim one job, as any worker does."""
    redis = redis_client(app)
    write_terms(redis, "", settings_of(app), [("critical", "m")])
    (held,) = ScriptClient(redis).claim()
    return held.job


def test_a_deadline_is_a_duration(lanes_app, wrong_by):
    """A job of critical has its 30 s, whatever the time was where it was submitted."""
    lanes_app.tasks[create_message.name].apply_async(kwargs=params(), queue="critical")
    job = claimed(lanes_app)

    assert 30 - SLOW < job.left_ms / 1000 <= 30
    assert job.waited_ms / 1000 < SLOW


def test_a_countdown_is_a_duration(lanes_app, wrong_by):
    """A job is due when its countdown is over; Celery makes an ETA of it, by the clock where it was submitted."""
    eta = datetime.fromtimestamp(time.time() + 100, UTC)
    lanes_app.tasks[create_message.name].apply_async(kwargs=params(), queue="critical", eta=eta)
    redis = redis_client(lanes_app)
    ((_, due),) = redis.zrange("lanes:scheduled", 0, -1, withscores=True)
    seconds, _ = redis.time()

    assert 100 - SLOW < due / 1000 - seconds <= 101
