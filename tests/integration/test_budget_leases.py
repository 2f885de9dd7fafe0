"""The leases of calls in flight: kept by a live process however long a call takes, over soon after a killed one."""

import time
from typing import Any, cast

import pytest
from kit.client_rig import params, web_app
from kit.waiting import wait_until
from kit.worker import worker
from redis import Redis

from celery_app.broker import lease
from celery_app.broker.lease import LEASE, Leases
from celery_app.budget import Cost, budget_for
from celery_app.client import Client
from celery_app.lanes import CRITICAL
from celery_app.settings import Limits, Settings
from demo.simulator import Behaviour, running
from tests.conftest import Valkey, close

#: Seconds within which a killed worker's jobs are back, as README.md promises.
BACK = 20.0


@pytest.fixture
def client(broker_url):
    """A client of an empty database."""
    with Redis.from_url(broker_url) as client:
        yield client


@pytest.fixture
def budget():
    """A budget of one call at a time."""
    return budget_for(Settings(limits=Limits(rpm=1_000_000, concurrency=1)), CRITICAL, "m")


#: Of the only call: its id, and the token of its process.
CALL_CLAIM = ("call-1", "process:call")


def lease_of(client: Redis) -> float:
    """Return when the only call's process last gave a sign of life, in ms since the epoch."""
    ((_, at),) = client.zrange("lanes:leases", 0, -1, withscores=True)
    return float(at)


def test_the_lease_of_a_call_without_a_job_is_kept_until_it_is_let_go(client, budget, monkeypatch):
    """By one thread for all calls of a process, which survives that Redis is full for a while."""
    monkeypatch.setattr(lease, "EXTEND_EVERY", 0.05)
    monkeypatch.setattr(lease, "RETRY_EVERY", 0.05)
    monkeypatch.setattr(lease, "LEASE", 2.0)
    ticket = budget.reserve(client, CRITICAL, Cost(), claim=CALL_CLAIM).ticket
    held = Leases(client, "")
    try:
        held.register(*CALL_CLAIM)
        for _ in range(2):
            before = lease_of(client)
            wait_until(lambda before=before: lease_of(client) > before, "no renewal")
            client.config_set("maxmemory", 1)
            before = lease_of(client)
            wait_until(lambda before=before: lease_of(client) > before, "no renewal while Redis is full")
            client.config_set("maxmemory", 0)
        assert held.holds(CALL_CLAIM[0])
        assert not budget.reserve(client, CRITICAL, Cost(), claim=("call-2", CALL_CLAIM[1])).granted
        assert budget.settle(client, ticket).known
        assert held.ack(*CALL_CLAIM)
    finally:
        client.config_set("maxmemory", 0)
        held.close()
    assert client.zcard("lanes:leases") == 0
    assert client.hlen("lanes:jobs") == 0
    assert budget.reserve(client, CRITICAL, Cost(), claim=("call-3", CALL_CLAIM[1])).granted


class Closing:
    """A client whose first command fails as redis-py's do when their pool is closed while they connect."""

    def __init__(self, client: Redis) -> None:
        """Fail once."""
        self.client = client
        self.commands = 0

    def execute_command(self, *command: Any) -> Any:
        """Do a command, unless it is the first."""
        self.commands += 1
        if self.commands == 1:
            raise AttributeError("'NoneType' object has no attribute 'readline'")
        return self.client.execute_command(*command)  # type: ignore[no-untyped-call]


def test_a_sign_of_life_that_fails_in_any_way_is_not_the_last(client, budget, monkeypatch):
    """Or all that the process holds from then on would be taken for a dead one's."""
    monkeypatch.setattr(lease, "EXTEND_EVERY", 0.05)
    monkeypatch.setattr(lease, "RETRY_EVERY", 0.05)
    budget.reserve(client, CRITICAL, Cost(), claim=CALL_CLAIM)
    before, closing = lease_of(client), Closing(client)
    held = Leases(cast("Redis", closing), "")
    held.register(*CALL_CLAIM)
    try:
        wait_until(lambda: lease_of(client) > before, "a sign of life")
    finally:
        held.close()
    assert closing.commands > 1


@pytest.mark.slow
def test_a_killed_workers_slots_are_free_when_its_jobs_are_back(valkey, tmp_path):
    """However long its calls might have taken: a chat is answered by another worker within 20 s."""
    with valkey.client(13) as redis:
        redis.flushdb()
    app = web_app(valkey.url(13))
    with running(Behaviour(latency=50)) as api:
        env: dict[str, Any] = {
            "CELERY_BROKER_URL": valkey.url(13),
            "EZAI_API_KEY": "k",
            "EZAI_BASE_URL": api.url,
            "EZAI_CONCURRENCY": "2",
        }
        with worker(tmp_path, "-c", "4", **env) as killed:
            for number in range(2):
                Client(app).submit("batch", **params(f"long {number}"))
            wait_until(lambda: len(in_flight(valkey)) == 2, "two calls in flight")
            time.sleep(LEASE + 3)
            assert len(in_flight(valkey)) == 2  # renewed
            killed.process.kill()
            killed.process.wait(10)
        killed_at = time.monotonic()
        api.control(latency=0)
        with worker(tmp_path, "-c", "4", **env):
            Client(app).ask("critical", **params("chat"))
            assert time.monotonic() - killed_at < BACK
    close(app)


def in_flight(valkey: Valkey) -> list[Any]:
    """Return the calls in flight."""
    with valkey.client(13) as redis:
        return [call for key in redis.keys("lanes:budget:*:calls") for call in redis.smembers(key)]
