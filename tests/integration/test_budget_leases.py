"""The leases of calls in flight: kept by a live process however long a call takes, over soon after a killed one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from client_rig import params, wait_until, web_app
from redis import Redis
from worker_process import worker

from celery_app.budget import CALL_LEASES, Budget, Cost, budget_for, leases
from celery_app.budget.budget import LEASE
from celery_app.client import Client
from celery_app.lanes import CRITICAL
from celery_app.settings import Limits, Settings
from demo.simulator import Behaviour, running
from tests.conftest import close

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import Valkey

#: Seconds within which a killed worker's jobs are back, as README.md promises.
BACK = 20.0


@pytest.fixture
def client(broker_url: str) -> Iterator[Redis]:
    """A client of an empty database."""
    with Redis.from_url(broker_url) as client:
        yield client


@pytest.fixture
def budget() -> Budget:
    """A budget of one call at a time."""
    return budget_for(Settings(limits=Limits(rpm=1_000_000, concurrency=1)), CRITICAL, "m")


def lease_of(client: Redis, budget: Budget) -> float:
    """Return the end of the only call's lease, in seconds since the epoch."""
    ((_, ends),) = client.zrange(budget._keys[1], 0, -1, withscores=True)
    return float(ends) / 1e6


def test_a_held_call_is_renewed_until_it_is_let_go(
    client: Redis, budget: Budget, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By one thread for all calls of a process, which survives that Redis is full for a while."""
    monkeypatch.setattr(leases, "RENEW_EVERY", 0.05)
    monkeypatch.setattr(leases, "RETRY_EVERY", 0.05)
    ticket = budget.admit(client, CRITICAL, Cost()).ticket
    CALL_LEASES.hold(budget, client, ticket)
    for _ in range(2):
        before = lease_of(client, budget)
        wait_until(lambda before=before: lease_of(client, budget) > before, "no renewal")
        client.config_set("maxmemory", 1)
        time.sleep(0.2)
        client.config_set("maxmemory", 0)
    CALL_LEASES.let_go(ticket)
    time.sleep(0.2)
    before = lease_of(client, budget)
    time.sleep(0.2)
    assert lease_of(client, budget) == before


@pytest.mark.slow
def test_a_killed_workers_slots_are_free_when_its_jobs_are_back(valkey: Valkey, tmp_path: Path) -> None:
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
    """Return the calls whose leases are good."""
    with valkey.client(13) as redis:
        return [
            ticket
            for key in redis.keys("lanes:budget:*:calls")
            for ticket in redis.zrangebyscore(key, time.time() * 1e6, "+inf")
        ]
