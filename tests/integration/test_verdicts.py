"""What one refusal says of whom: of its job, of the model's budget, or of the account. Real workers, real HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import anthropic
import httpx2
import pytest
from client_rig import PATIENCE, Rig, fresh, params, web_app
from worker_process import worker

from celery_app.client import Client
from celery_app.connection import redis_client
from celery_app.demo.ezai import running
from celery_app.errors import ApiUnreachable, CallTimeout
from tasks import create_message, stream_message
from tasks.failures import failure_of
from tests.conftest import close

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Valkey

#: Celery 5.7 stores a result by a command that redis-py 8 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

#: Seconds that a call of a batch job may take here.
CALL_TIMEOUT = 0.6

#: The project's own tasks call with the lanes' key.
KEY = "sk-test"

#: The three ways in which a call is made.
WAYS = ("create", "stream", "admit")


@pytest.fixture(scope="module")
def shared(valkey: Valkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One worker, of a project that has tasks of its own beside the lanes'."""
    with valkey.client(14) as redis:
        redis.flushdb()
    app = web_app(valkey.url(14))
    with running() as api:
        env = {
            "CELERY_BROKER_URL": valkey.url(14),
            "EZAI_API_KEY": KEY,
            "EZAI_BASE_URL": api.url,
            "LANES_BATCH_CALL_TIMEOUT": str(CALL_TIMEOUT),
            "LANES_NORMAL_ATTEMPTS": "2",
            "OWN_KEY": KEY,
            "OWN_URL": api.url,
            "PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parents[2]}",
        }
        queues = ("-Q", "critical,normal,batch", "-c", "8")
        with worker(tmp_path_factory.mktemp("worker"), *queues, app="own_tasks", **env) as started:
            yield Rig(app, Client(app), api, started, env)
    close(app)


@pytest.fixture
def up(shared: Rig) -> Rig:
    """The same, fresh for each test."""
    redis = redis_client(shared.app)
    redis.delete("lanes:returns", "lanes:returned", "lanes:dead", "lanes:dead_reasons")
    return fresh(shared, rpm=None, itpm=None, spend_limit=False)


def send(up: Rig, way: str = "create", fault: str | None = None, lane: str = "batch", text: str = "hello") -> Any:
    """Submit a job of model ``m`` in one of the ways."""
    if way == "admit":
        return up.app.send_task("own.ask", (fault, text), queue=lane)
    task = {"create": create_message, "stream": stream_message}[way]
    return up.app.tasks[task.name].apply_async(kwargs=params(text, fault), queue=lane)


def calls_with(up: Rig, fault: str | None) -> int:
    """Return how many calls with this fault the API has seen."""
    return sum(call["fault"] == fault for call in up.api.calls())


class TestTimeout:
    """An answer that takes longer than a call may."""

    # A project's own client has a timeout for each read, which a server that drips never exceeds.
    @pytest.mark.parametrize(
        ("way", "fault"),
        [(way, fault) for way in WAYS for fault in ("hang", "drip") if (way, fault) != ("admit", "drip")],
    )
    def test_a_call_timeout_is_repeated_once(self, up: Rig, way: str, fault: str) -> None:
        """Whatever the lane's attempts, two answers are paid for; the error names what to set, and so does the log."""
        job = send(up, way, fault)
        with pytest.raises(CallTimeout, match=r"within 0\.\d s \(.*LANES_BATCH_CALL_TIMEOUT\)\."):
            job.get(timeout=PATIENCE)

        assert up.api.summary()["total"] == 2
        (reason,) = redis_client(up.app).hvals("lanes:dead_reasons")
        assert b"CallTimeout after 2 attempts" in reason
        assert b"LANES_BATCH_CALL_TIMEOUT" in reason

    @pytest.mark.parametrize("kind", [httpx2.ConnectTimeout, httpx2.PoolTimeout])
    @pytest.mark.parametrize("wrapped", [False, True])
    def test_a_connection_that_never_came_was_paid_for_by_nobody(
        self, kind: type[httpx2.TimeoutException], wrapped: bool
    ) -> None:
        """An API behind a firewall that drops packets is away: all of the lane's attempts are there for it."""
        cause = kind("timed out")
        error = anthropic.APITimeoutError(httpx2.Request("POST", "http://api.test"))
        error.__cause__ = cause
        judged = failure_of(error if wrapped else cause, 5.0)

        assert judged is not None
        assert isinstance(judged.error, ApiUnreachable)
        assert (judged.kind, judged.timed_out, judged.outcome) == ("retry", False, "overloaded")
