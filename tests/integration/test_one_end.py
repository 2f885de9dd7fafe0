"""A cancelled job ends as that, also where its broker goes away in the middle."""

import pytest
from celery.states import REVOKED
from kit.server import Server

from celery_app.app import create_app
from celery_app.errors import Cancelled
from celery_app.keys import STREAM_TASK
from tasks.endings import cancelled, once


@pytest.mark.filterwarnings("ignore:Call to deprecated setex")  # of Celery's backend
def test_a_cancelled_job_whose_broker_goes_away_has_no_second_end(valkey, tmp_path, monkeypatch):
    """What was stored as cancelled raises nothing that would be stored as a failure afterwards."""
    with Server(tmp_path) as server:
        monkeypatch.setenv("CELERY_BROKER_URL", server.url)
        monkeypatch.setenv("CELERY_RESULT_BACKEND", valkey.url(11))
        app = create_app()
        task = app.tasks[STREAM_TASK]
        task.push_request(id="one", task=STREAM_TASK, args=(), kwargs={}, called_directly=False, is_eager=False)
        try:
            server.kill()
            with pytest.raises(Cancelled):
                once(lambda: cancelled(task.job), lambda: task.job)()
            assert task.backend.get_state("one") == REVOKED
        finally:
            task.pop_request()
