"""A job has one end, also where its broker goes away in the middle."""

import pytest
from celery.states import REVOKED
from kit.server import Server
from kit.waiting import wait_until

from celery_app.app import create_app
from celery_app.broker.claims import delivery_of
from celery_app.errors import Cancelled
from celery_app.keys import STREAM_TASK
from tasks.endings import cancelled, once
from tests.conftest import close


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


@pytest.mark.parametrize("end", ["ack", "requeue", "dead_letter"])
def test_what_a_slot_could_not_tell_the_broker_is_left_to_the_heartbeat(tmp_path, monkeypatch, end):
    """An acknowledgement after it waits for no broker that the slot has waited for, and takes no requeued job away."""
    with Server(tmp_path) as server:
        monkeypatch.setenv("CELERY_BROKER_URL", server.url)
        app = create_app()
        with app.connection_for_write() as connection:
            channel, token = connection.default_channel, f"{'0' * 32}:1"
            channel.leases.register("one", token)
            server.kill()
            getattr(channel.leases, end)("one", token, *["why"] * (end == "dead_letter"))
            owed = channel.leases._unacked["one", token]
            channel.qos.append(None, delivery_of("one", token))
            channel.qos.ack(delivery_of("one", token))
            assert channel.leases._unacked["one", token] is owed
            server.start()
            wait_until(lambda: not channel.leases.holds("one"), "the heartbeat has told it", 30.0)
        close(app)
