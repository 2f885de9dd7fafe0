"""One key that is gone, evicted or deleted by hand, loses no job and is made up for."""

import pytest
from kit.scheduler import REQUEST, Scheduler
from kit.script_client import LANES as NAMES, ScriptClient

from celery_app.broker.lane_stats import lane_stats
from celery_app.budget import Budget
from celery_app.lanes import BATCH, LANES
from celery_app.scheduler.scripts import PRESENT
from celery_app.settings import Limits

FREE = Budget("key:m", "m", Limits(rpm=1_000_000), LANES, sharers=NAMES)


def counted(scheduler: Scheduler) -> tuple[int, int]:
    """Return how many jobs batch has queued and in hand."""
    stats = lane_stats(scheduler.client, [BATCH])["batch"]
    return stats.depth, stats.in_flight


def sign(scheduler: Scheduler) -> None:
    """Have a worker say that it is here, as each does every 5 s."""
    PRESENT.run(scheduler.client, (), ("", "worker", "batch"))


@pytest.mark.parametrize("key", ["lanes:line:batch:1:m:", "lanes:models:batch", "lanes:tenants:batch:m"])
def test_a_line_that_is_not_found_is_found_again(scheduler, key):
    """By a worker's signs of life, a number of jobs at a time."""
    for number in range(250):
        scheduler.put(FREE, BATCH, f"job-{number:03}", left=100)
    assert scheduler.raw.delete(key) == 1
    assert scheduler.names() == []
    for _ in range(10):
        sign(scheduler)

    assert len(scheduler.names()) == 250
    assert counted(scheduler) == (0, 250)


@pytest.mark.parametrize("key", ["lanes:models:batch", "lanes:tenants:batch:m"])
def test_a_later_job_finds_its_line_at_once(scheduler, key):
    """With what stands there already."""
    scheduler.put(FREE, BATCH, "old")
    scheduler.raw.delete(key)
    scheduler.put(FREE, BATCH, "new")

    assert scheduler.names() == ["old", "new"]


def test_jobs_go_behind_those_that_wait_when_the_last_number_is_gone(scheduler):
    """Numbered anew from 1 they would go first, as long as some come."""
    for number in range(5):
        scheduler.put(FREE, BATCH, f"old-{number}")
    scheduler.raw.delete("lanes:number")
    scheduler.put(FREE, BATCH, "new")

    assert scheduler.names()[-1] == "new"


def test_whoever_waits_for_a_job_that_ended_is_told_though_the_list_of_those_is_gone(scheduler):
    """Its record says so for as long as nobody was told."""
    scheduler.put(FREE, BATCH, "late", left=1)
    scheduler.client.now += 2
    assert scheduler.names() == []
    assert scheduler.raw.delete("lanes:ended") == 1
    sign(scheduler)

    assert scheduler.raw.zrange("lanes:ended", 0, -1) == [b"late"]


def test_a_deadline_that_is_not_found_passes_all_the_same(scheduler):
    """Whoever waits is told."""
    scheduler.put(FREE, BATCH, "late", left=100)
    scheduler.raw.delete("lanes:deadlines")
    sign(scheduler)
    scheduler.client.now += 101

    assert scheduler.names() == []
    assert scheduler.raw.zrange("lanes:ended", 0, -1) == [b"late"]


def test_a_dead_workers_job_comes_back_though_its_lease_is_gone(scheduler):
    """Its record says that somebody had it."""
    scheduler.put(FREE, BATCH, "abandoned")
    assert scheduler.names() == ["abandoned"]
    scheduler.raw.delete("lanes:leases")
    names = []
    for _ in range(20):
        sign(scheduler)
        scheduler.client.now += 1
        names += scheduler.names(scripts=scheduler.worker(), lease_ms=15_000)

    assert names == ["abandoned"]


def test_a_job_that_waited_for_a_time_waits_no_longer_than_for_that(scheduler):
    """When it was due nobody knows any more."""
    scheduler.put(FREE, BATCH, "again")
    (held,) = scheduler.claim()
    scheduler.scripts.requeue(held, delay_ms=60_000)
    scheduler.raw.delete("lanes:scheduled")
    sign(scheduler)

    assert scheduler.names() == ["again"]


def test_a_record_of_what_has_ended_and_is_nowhere_goes(scheduler):
    """Whoever deletes the dead letters by hand leaves no texts behind for good."""
    scheduler.put(FREE, BATCH, "dead")
    (held,) = scheduler.claim()
    scheduler.scripts.dead_letter(held, "why")
    scheduler.raw.delete("lanes:dead", "lanes:ended")
    sign(scheduler)

    assert scheduler.raw.hlen("lanes:jobs") == scheduler.raw.hlen("lanes:texts") == 0


def test_numbers_that_are_gone_are_right_again_when_the_lane_is_empty(scheduler):
    """They never go below nothing, which would have let so many more jobs in for good."""
    for number in range(5):
        scheduler.put(FREE, BATCH, f"job-{number}")
    scheduler.raw.delete("lanes:counts")
    for held in scheduler.claim(5):
        scheduler.scripts.ack(held)
    assert counted(scheduler) == (0, 0)
    scheduler.put(FREE, BATCH)

    assert counted(scheduler) == (1, 0)


def test_numbers_of_a_lane_whose_lines_are_gone_hold_no_room(scheduler):
    """Else its capacity would be smaller for good."""
    for _ in range(5):
        scheduler.put(FREE, BATCH)
    scheduler.raw.delete(
        "lanes:line:batch:1:m:", "lanes:models:batch", "lanes:tenants:batch:m", "lanes:jobs", "lanes:texts"
    )

    assert counted(scheduler) == (0, 0)


def test_a_new_tenant_gets_its_turns_and_no_more_when_the_lanes_time_is_gone(scheduler):
    """It begins where the others are, not where they all began."""
    for number in range(300):
        scheduler.put(FREE, BATCH, f"a-{number}", tenant="a")
    assert len(scheduler.names(200)) == 200
    scheduler.raw.delete("lanes:clocks")
    for number in range(100):
        scheduler.put(FREE, BATCH, f"b-{number}", tenant="b")

    assert 8 <= sum(name.startswith("a") for name in scheduler.names(20)) <= 12


def test_a_claim_goes_on_when_the_terms_of_a_waiting_call_are_gone(scheduler):
    """Only so many are kept; the call brings its own when it asks again."""
    one = Budget("key:one", "one", Limits(rpm=1), LANES, sharers=NAMES)
    claim = ("call-1", "slots:call")
    assert one.reserve(scheduler.client, BATCH, REQUEST, claim=("call-0", "slots:call")).granted
    assert not one.reserve(scheduler.client, BATCH, REQUEST, claim=claim, waits=True).granted
    scheduler.put(FREE, BATCH, "next")
    scheduler.raw.hdel("lanes:terms", "batch:one")

    assert scheduler.names() == ["next"]
    assert not one.reserve(scheduler.client, BATCH, REQUEST, claim=claim, waits=True).granted


def test_a_name_is_free_whose_job_is_gone(lanes_app, client):
    """Nobody would ever have requeued it."""
    first = lanes_app.send_task("some.task", queue="batch", headers={"lanes_unique": "invoice-17"})
    client.delete("lanes:jobs")
    lanes_app.send_task("some.task", queue="batch", headers={"lanes_unique": "invoice-17"})

    (held,) = ScriptClient(client).claim(2)
    assert held.name != first.id
