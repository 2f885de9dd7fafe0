"""A step of the server's own clock: put right by NTP, behind after a failover, forward after a machine was paused."""

from typing import Any

import pytest
from kit.clock import ClockedRedis
from kit.scheduler import REQUEST, Scheduler

from celery_app.budget import Budget
from celery_app.lanes import BATCH, CRITICAL, LANES, NORMAL
from celery_app.settings import Limits

HOUR = 3_600.0

#: Milliseconds and seconds that a lease lasts, and a bit more.
LEASE_MS, PAST_LEASE_S = 15_000, 16

#: One call a second, with the headroom that is left, and none saved up.
ONE_A_SECOND = Budget("key:m", "m", Limits(rpm=62), LANES, sharers=tuple(lane.name for lane in LANES))

#: Whatever goes, until the API refuses.
FREE = Budget("key:free", "free", Limits(), LANES, sharers=tuple(lane.name for lane in LANES))


@pytest.fixture
def scheduler(client):
    """Lanes whose clock stands still, and was noted."""
    scheduler = Scheduler(ClockedRedis(client))
    scheduler.claim()
    return scheduler


def claims_in(scheduler: Scheduler, seconds: int, **options: Any) -> list[str]:
    """Return what a worker is handed that looks once a second."""
    names = []
    for _ in range(seconds):
        scheduler.client.now += 1
        names += scheduler.names(**options)
    return names


def test_a_budget_goes_on_at_its_rate_when_the_clock_is_put_back(scheduler):
    """Its level was written down at a time that is now to come."""
    for _ in range(40):
        scheduler.put(ONE_A_SECOND, BATCH)
    assert len(claims_in(scheduler, 5)) >= 4
    scheduler.client.now -= HOUR

    assert 25 <= len(claims_in(scheduler, 30)) <= 30


def test_jobs_of_a_dead_worker_come_back_when_the_clock_is_put_back(scheduler):
    """Its last sign of life lies in the future then."""
    scheduler.put(ONE_A_SECOND, BATCH, "abandoned")
    (_,) = scheduler.claim()
    scheduler.client.now -= HOUR

    assert claims_in(scheduler, PAST_LEASE_S + 1, scripts=scheduler.worker(), lease_ms=LEASE_MS) == ["abandoned"]


@pytest.mark.parametrize("step", [20.0, HOUR])
def test_no_lease_is_over_because_the_clock_was_put_forward(scheduler, step):
    """Each worker has the time for one more sign of life; what nobody has given one for comes back."""
    for name in ("alive", "abandoned"):
        scheduler.put(ONE_A_SECOND, BATCH, name)
        scheduler.client.now += 2
        (held,) = scheduler.claim(scripts=scheduler.scripts if name == "alive" else scheduler.worker())
        if name == "alive":
            alive = held
    scheduler.scripts.extend(alive)
    scheduler.client.now += step
    other = scheduler.worker()

    assert claims_in(scheduler, 3, scripts=other, lease_ms=LEASE_MS) == []
    assert scheduler.scripts.extend(alive, lease_ms=LEASE_MS) == []
    assert claims_in(scheduler, 10, scripts=other, lease_ms=LEASE_MS) == ["abandoned"]


def test_what_waits_for_a_time_waits_no_longer_when_the_clock_is_put_back(scheduler):
    """A second's backoff is a second."""
    scheduler.put(ONE_A_SECOND, NORMAL, "again")
    (held,) = scheduler.claim()
    assert scheduler.scripts.requeue(held, delay_ms=1_000)
    scheduler.client.now -= HOUR

    assert claims_in(scheduler, 3) == ["again"]


def test_a_call_that_gave_up_waiting_holds_no_room_when_the_clock_is_put_back(scheduler):
    """It lapses after two seconds."""
    scheduler.put(ONE_A_SECOND, CRITICAL)
    (_,) = scheduler.claim()
    claim = ("call-1", "slots:call")
    assert not ONE_A_SECOND.reserve(scheduler.client, CRITICAL, REQUEST, claim=claim, waits=True).granted
    scheduler.client.now -= HOUR
    scheduler.put(ONE_A_SECOND, BATCH, "next")

    assert claims_in(scheduler, 5) == ["next"]


def _overload(scheduler: Scheduler, times: int) -> None:
    """Have as many calls find the API overloaded, a moment apart."""
    for _ in range(times):
        scheduler.put(FREE, BATCH)
        held = _next(scheduler)
        scheduler.client.now += 0.1
        scheduler.settle(FREE, held, None, "overloaded")


def _next(scheduler: Scheduler) -> Any:
    for _ in range(100):
        if jobs := scheduler.claim():
            return jobs[0]
        scheduler.client.now += 0.1
    raise AssertionError("nothing leaves")


def test_an_api_that_was_overloaded_is_used_again_when_the_clock_is_put_back(scheduler):
    """Calls that go well after the step count as what came after the last refusal."""
    _overload(scheduler, 1)
    scheduler.client.now -= HOUR
    for _ in range(20):
        scheduler.put(FREE, BATCH)
        held = _next(scheduler)
        scheduler.client.now += 0.1
        scheduler.settle(FREE, held)

    assert scheduler.raw.hget(f"lanes:budget:{{{FREE.name}}}", "overload_rate") is None
