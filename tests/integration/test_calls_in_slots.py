"""Calls that a job asks for in its slot: each is held for itself, whatever becomes of its job and of the others."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
from budget_kit.clock import START_S, ClockedRedis
from budget_kit.yard import REQUEST, Yard

from celery_app.budget import Budget
from celery_app.lanes import BATCH, LANES
from celery_app.scheduler.verbs import ACK
from celery_app.settings import Limits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker_kit.hand import Held

    from celery_app.budget import Reservation

#: Under which the calls here are held.
TOKEN = "slots:call"  # noqa: S105 - the name of a claim

#: Seconds after which a lease without a sign of life is over, and a little.
LOST = 16.0


@pytest.fixture
def yard(broker_url: str, valkey: Any) -> Iterator[Yard]:
    """Lanes whose clock stands still."""
    assert broker_url
    with valkey.client() as client:
        yield Yard(ClockedRedis(client))


def budget(model: str, rpm: int | None = None, **limits: int) -> Budget:
    """Return a model's own budget."""
    return Budget(f"key:{model}", model, Limits(rpm=rpm, **limits), LANES, sharers=tuple(lane.name for lane in LANES))


class Slot:
    """What a worker's slot does for a job in hand."""

    _numbers = itertools.count()

    def __init__(self, yard: Yard, held: Held) -> None:
        """Have the job."""
        self.yard, self.held = yard, held
        self.claim = ("", "")

    def ask(self, drawn_on: Budget, *, again: bool = False, **options: Any) -> Reservation:
        """Ask for a call; `again`: for the one that was asked for before."""
        self.claim = self.claim if again else (f"call-{next(self._numbers)}", TOKEN)
        job = (self.held.tag, self.held.token)
        lane = next(lane for lane in LANES if lane.name == self.held.queue)
        return drawn_on.reserve(self.yard.client, lane, REQUEST, claim=self.claim, job=job, **options)

    def end(self, drawn_on: Budget, reservation: Reservation) -> None:
        """The call was answered; its process lets go of it."""
        assert drawn_on.settle(self.yard.client, reservation.ticket, None, None, "answered")
        assert ACK.run(self.yard.client, (), ("", *self.claim)) == 1


def in_flight(yard: Yard) -> set[bytes]:
    """Return the calls that are taken for unsettled."""
    return {call for key in yard.raw.keys("lanes:budget:*:calls") for call in yard.raw.smembers(key)}


def taken(yard: Yard, drawn_on: Budget) -> Slot:
    """Have a worker take a job of a budget."""
    yard.put(drawn_on, BATCH, "job")
    (held,) = yard.claim()
    return Slot(yard, held)


def test_a_worker_that_lost_its_job_gets_no_call_for_it(yard: Yard) -> None:
    """The job waits for another worker, once, and is that one's."""
    drawn_on, other = budget("m"), yard.worker()
    slot = taken(yard, drawn_on)
    yard.client.now += LOST
    other.extend()
    assert slot.ask(drawn_on).lost
    assert [held.tag for held in yard.claim(4)] == ["job"]
    assert slot.ask(drawn_on).lost
    assert yard.claim(4) == []


def test_the_worker_that_has_the_job_by_now_keeps_it(yard: Yard) -> None:
    """It extends its lease, ends the job, and nothing is left."""
    drawn_on, other = budget("m"), yard.worker()
    slot = taken(yard, drawn_on)
    yard.client.now += LOST
    other.extend()
    (held,) = yard.claim(hand=other)
    assert slot.ask(drawn_on).lost
    assert other.extend(held) == []
    assert other.ack(held) == 1
    assert yard.raw.hlen("lanes:jobs") == 0
    assert yard.raw.zcard("lanes:leases") == 0


def test_a_job_of_which_redis_knows_nothing_goes_on(yard: Yard) -> None:
    """Nobody else will do it, so its calls are calls without a job."""
    drawn_on = budget("m")
    slot = taken(yard, drawn_on)
    yard.raw.delete("lanes:jobs")
    reservation = slot.ask(drawn_on)
    assert reservation.granted
    slot.end(drawn_on, reservation)
    assert yard.raw.hlen("lanes:jobs") == 0


def test_a_job_that_calls_another_model_gives_back_what_was_reserved_for_it(yard: Yard) -> None:
    """Its reservation ends with it; else the one call of that budget would be in flight for ever."""
    narrow, other = budget("narrow", concurrency=1), budget("other")
    yard.put(narrow, BATCH, "next")
    slot = taken(yard, narrow)
    reservation = slot.ask(other)
    slot.end(other, reservation)
    assert yard.claim() == []
    assert yard.hand.ack(slot.held) == 1
    assert in_flight(yard) == set()
    assert len(yard.claim()) == 1


def test_two_calls_of_a_job_at_a_time_are_two_calls(yard: Yard) -> None:
    """A task may call from threads of its own: each counts until it is settled itself."""
    drawn_on = budget("m", concurrency=3)
    slot, second = taken(yard, drawn_on), None
    first, claim = slot.ask(drawn_on), slot.claim
    second = slot.ask(drawn_on)
    assert first.granted
    assert second.granted
    assert not slot.ask(drawn_on).granted
    slot.claim = claim
    slot.end(drawn_on, first)
    assert len(in_flight(yard)) == 2


def test_a_record_that_says_that_its_job_stands_elsewhere_is_handed_out_by_nobody(yard: Yard) -> None:
    """Whoever has written it: else each claim would hand it out again, as often as it has room."""
    drawn_on, other = budget("m"), budget("other")
    yard.put(drawn_on, BATCH, "broken")
    yard.put(other, BATCH, "fine")
    yard.raw.hset("lanes:jobs", "broken", yard.raw.hget("lanes:jobs", "fine"))
    yard.put(drawn_on, BATCH, "behind")
    assert sorted(yard.names()) == ["behind", "fine"]
    assert yard.hand.places("batch") == 0
