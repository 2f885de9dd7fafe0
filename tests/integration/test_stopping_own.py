"""A worker that is told to stop while a project's own job, which has no place in a lane, makes a call."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest
from kit.client_rig import IN_TIME_S, rig
from kit.waiting import wait_until

from celery_app import controls
from celery_app.connections.redis_client import redis_client
from celery_app.errors import OutOfBudget

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Valkey

#: Celery 5.7 stores a result by a command that redis-py 8 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

#: Seconds after which a second signal is one: twice what `celery_app.stopping.stopper` says.
ANOTHER = 2.0


slow = pytest.mark.slow
WAITS = [
    ("own.waits", "own"),
    pytest.param("own.plain", "own", marks=slow),
    pytest.param("own.waits", "own,batch", marks=slow),
    pytest.param("own.plain", "own,batch", marks=slow),
]


@pytest.mark.parametrize(("task", "queues"), WAITS)
def test_who_waits_for_the_budget_is_not_lost(valkey: Valkey, tmp_path: Path, task: str, queues: str) -> None:
    """Its job has an error that says why, or it is back in its queue; no RETRY without a job."""
    options = ("-Q", queues, "-P", "threads")
    with rig(valkey, 8, tmp_path, slots=2, app="own_tasks", options=options, OWN_KEY="k", OWN_URL="{api}") as up:
        controls.pause(up.app, "normal")
        result = up.app.send_task(task, queue="own")
        wait_until(lambda: redis_client(up.app).get("began"), "the job runs", IN_TIME_S)
        up.worker.process.send_signal(signal.SIGTERM)
        assert up.worker.process.wait(IN_TIME_S) == 0
        queued = redis_client(up.app).llen("own")
        is_back = (task, queues) == ("own.waits", "own,batch")
        assert (result.state, queued) == (("RETRY", 1) if is_back else ("FAILURE", 0))
        if not is_back:
            assert isinstance(result.result, OutOfBudget)
            assert "its worker stops" in str(result.result)


def test_a_second_sigterm_hangs_up_on_no_own_call(valkey: Valkey, tmp_path: Path) -> None:
    """The lane's job is back at once, the own one's call comes to its end, and then the worker ends."""
    options = ("-Q", "own,batch", "-P", "threads")
    with rig(valkey, 8, tmp_path, slots=2, app="own_tasks", options=options, OWN_KEY="k", OWN_URL="{api}") as up:
        up.api.control(latency=3 * ANOTHER)
        result = up.app.send_task("own.plain", queue="own")
        up.client.submit("batch", model="m", max_tokens=10, messages=[{"role": "user", "content": "mine"}])
        wait_until(lambda: up.api.summary()["in_flight"] == 2, "two calls at the API")
        up.worker.process.send_signal(signal.SIGTERM)
        time.sleep(ANOTHER)
        up.worker.process.send_signal(signal.SIGTERM)
        wait_until(lambda: redis_client(up.app).hget("lanes:counts", "batch:queued") == b"1", "the lane's job is back")
        assert up.worker.process.wait(IN_TIME_S) == 0
        assert (result.state, result.result["type"]) == ("SUCCESS", "message")
