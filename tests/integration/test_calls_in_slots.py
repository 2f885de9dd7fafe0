"""Calls that a job asks for in its slot: each is held for itself, whatever becomes of its job and of the others."""

import itertools
from collections import Counter
from typing import Any

import pytest
from kit.clock import START_S, ClockedRedis
from kit.scheduler import REQUEST, Scheduler
from kit.script_client import Held

from celery_app.budget import Budget, Reservation
from celery_app.lanes import BATCH, CRITICAL, LANES, NORMAL, Lane
from celery_app.scheduler.scripts import ACK
from celery_app.settings import Limits

#: Under which the calls here are held.
TOKEN = "slots:call"  # noqa: S105 - the name of a claim

#: A budget that lets one call a second leave, and the seconds in which it fills up.
ONE_A_SECOND, REFILL = 60, 1.1

#: Calls that leave while lanes race for them.
SLOTS = 300

#: Seconds for which a worker's sign of life counts.
SIGN_LASTS = 15

#: Seconds after which a lease without a sign of life is over, and a little.
LOST = 16.0


@pytest.fixture
def scheduler(broker_url, valkey):
    """Lanes whose clock stands still."""
    assert broker_url
    with valkey.client() as client:
        yield Scheduler(ClockedRedis(client))


def budget(model: str, rpm: int | None = None, **limits: int) -> Budget:
    """Return a model's own budget."""
    return Budget(f"key:{model}", model, Limits(rpm=rpm, **limits), LANES, sharers=tuple(lane.name for lane in LANES))


class Slot:
    """What a worker's slot does for a job in hand."""

    _numbers = itertools.count()

    def __init__(self, scheduler: Scheduler, held: Held) -> None:
        self.scheduler, self.held = scheduler, held
        self.claim, self.waits = ("", ""), False

    def ask(self, drawn_on: Budget, **options: Any) -> Reservation:
        """Ask for a call, the one that waits if one does."""
        self.claim = self.claim if self.waits else (f"call-{next(self._numbers)}", TOKEN)
        job = (self.held.tag, self.held.token)
        lane = next(lane for lane in LANES if lane.name == self.held.queue)
        reservation = drawn_on.reserve(self.scheduler.client, lane, REQUEST, claim=self.claim, job=job, **options)
        self.waits = not reservation.granted and options.get("waits", False)
        return reservation

    def end(self, drawn_on: Budget, reservation: Reservation) -> None:
        """The call was answered; its process lets go of it."""
        assert drawn_on.settle(self.scheduler.client, reservation.ticket).known
        assert ACK.run(self.scheduler.client, (), ("", *self.claim)) == 1


def sign(scheduler: Scheduler, *lanes: Lane) -> None:
    """Have a worker of these lanes give a sign of life."""
    for lane in lanes:
        scheduler.raw.zadd(f"lanes:workers:{lane.name}", {"w": (START_S + scheduler.client.now) * 1_000})


def in_flight(scheduler: Scheduler) -> set[bytes]:
    """Return the calls that are taken for unsettled."""
    return {call for key in scheduler.raw.keys("lanes:budget:*:calls") for call in scheduler.raw.smembers(key)}


def taken(scheduler: Scheduler, drawn_on: Budget, **facts: Any) -> Slot:
    """Have a worker take a job of a budget."""
    scheduler.put(drawn_on, BATCH, "job", **facts)
    (held,) = scheduler.claim()
    return Slot(scheduler, held)


def test_a_worker_that_lost_its_job_gets_no_call_for_it(scheduler):
    """The job waits for another worker, once, and is that one's."""
    drawn_on, other = budget("m"), scheduler.worker()
    slot = taken(scheduler, drawn_on)
    scheduler.wait_beside(LOST, other)
    assert slot.ask(drawn_on).lost
    assert [held.tag for held in scheduler.claim(4)] == ["job"]
    assert slot.ask(drawn_on).lost
    assert scheduler.claim(4) == []


def test_the_worker_that_has_the_job_by_now_keeps_it(scheduler):
    """It extends its lease, ends the job, and nothing is left."""
    drawn_on, other = budget("m"), scheduler.worker()
    slot = taken(scheduler, drawn_on)
    scheduler.wait_beside(LOST, other)
    (held,) = scheduler.claim(scripts=other)
    assert slot.ask(drawn_on).lost
    assert other.extend(held) == []
    assert other.ack(held) == 1
    assert scheduler.raw.hlen("lanes:jobs") == 0
    assert scheduler.raw.zcard("lanes:leases") == 0


def test_a_job_of_which_redis_knows_nothing_goes_on(scheduler):
    """Nobody else will do it, so its calls are calls without a job."""
    drawn_on = budget("m")
    slot = taken(scheduler, drawn_on)
    scheduler.raw.delete("lanes:jobs")
    reservation = slot.ask(drawn_on)
    assert reservation.granted
    slot.end(drawn_on, reservation)
    assert scheduler.raw.hlen("lanes:jobs") == 0


def test_a_job_that_calls_another_model_gives_back_what_was_reserved_for_it(scheduler):
    """Its reservation ends with it; else the one call of that budget would be in flight for ever."""
    narrow, other = budget("narrow", concurrency=1), budget("other")
    scheduler.put(narrow, BATCH, "next")
    slot = taken(scheduler, narrow)
    reservation = slot.ask(other)
    slot.end(other, reservation)
    assert scheduler.claim() == []
    assert scheduler.scripts.ack(slot.held) == 1
    assert in_flight(scheduler) == set()
    assert len(scheduler.claim()) == 1


def test_two_calls_of_a_job_at_a_time_are_two_calls(scheduler):
    """A task may call from threads of its own: each counts until it is settled itself."""
    drawn_on = budget("m", concurrency=3)
    slot, second = taken(scheduler, drawn_on), None
    first, claim = slot.ask(drawn_on), slot.claim
    second = slot.ask(drawn_on)
    assert first.granted
    assert second.granted
    assert not slot.ask(drawn_on).granted
    slot.claim = claim
    slot.end(drawn_on, first)
    assert len(in_flight(scheduler)) == 2


def test_a_reservation_whose_answer_was_lost_is_not_made_twice(scheduler):
    """Who asks again gets the ticket of before, and the budget has paid once."""
    drawn_on = budget("m", rpm=600)
    slot = taken(scheduler, drawn_on)
    first = slot.ask(drawn_on)
    level = scheduler.raw.hget("lanes:budget:{key:m}", "requests_level")
    slot.waits = True
    assert slot.ask(drawn_on) == first
    assert scheduler.raw.hget("lanes:budget:{key:m}", "requests_level") == level
    slot.end(drawn_on, first)


def test_a_call_of_a_lane_that_has_waited_gets_the_lanes_share(scheduler):
    """Beside endless normal: one in twenty, and nothing is lost for that."""
    drawn_on = budget("m", ONE_A_SECOND)
    slot = taken(scheduler, drawn_on, age=60)
    for n in range(SLOTS):
        scheduler.put(drawn_on, NORMAL, f"n{n}")
    served: Counter[str] = Counter()
    for _ in range(SLOTS):
        sign(scheduler, *LANES)
        reservation = slot.ask(drawn_on, waits=True)
        if reservation.granted:
            slot.end(drawn_on, reservation)
            served["slot"] += 1
        for held in scheduler.claim():
            served["normal"] += 1
            scheduler.settle(drawn_on, held)
            scheduler.scripts.ack(held)
        scheduler.client.now += REFILL
    assert served["slot"] == pytest.approx(0.05 * SLOTS, abs=4)
    assert served.total() >= SLOTS - 10


def test_a_call_leaves_room_for_lanes_that_somebody_serves(scheduler):
    """What is left for a job that nobody takes would be lost."""
    drawn_on = budget("m", ONE_A_SECOND)
    slot = taken(scheduler, drawn_on)
    scheduler.put(drawn_on, CRITICAL, "c")
    scheduler.client.now += REFILL
    sign(scheduler, CRITICAL)
    assert not slot.ask(drawn_on).granted
    scheduler.client.now += SIGN_LASTS
    assert slot.ask(drawn_on).granted


def test_a_record_that_says_that_its_job_stands_elsewhere_is_handed_out_by_nobody(scheduler):
    """Whoever has written it: else each claim would hand it out again, as often as it has room."""
    drawn_on, other = budget("m"), budget("other")
    scheduler.put(drawn_on, BATCH, "broken")
    scheduler.put(other, BATCH, "fine")
    scheduler.raw.hset("lanes:jobs", "broken", scheduler.raw.hget("lanes:jobs", "fine"))
    scheduler.put(drawn_on, BATCH, "behind")
    assert sorted(scheduler.names()) == ["behind", "fine"]
    assert scheduler.scripts.places("batch") == 0
