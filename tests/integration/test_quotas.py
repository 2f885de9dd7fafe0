"""Caps on money and limits of a day, on the real scripts: what they cover waits, and nothing else does."""

from dataclasses import replace
from typing import Any

import pytest
from kit.money import DOLLAR, Money, cost, used
from redis import Redis

from celery_app.budget import Usage
from celery_app.budget.quota import Quota
from celery_app.lanes import BATCH, CRITICAL, NORMAL
from celery_app.scheduler.scripts import CANCEL, PURGE


@pytest.fixture
def redis(broker_url):
    """A client of an empty database."""
    with Redis.from_url(broker_url) as client:
        yield client


def test_a_cap_of_a_lane_pauses_it_with_the_reason_and_no_other(redis):
    """What would cost more than is left waits; other lanes go on."""
    money = Money(redis, lanes=(CRITICAL, NORMAL, capped(BATCH, 5)))
    for i in range(7):
        money.add(f"batch-{i}")
    money.add("normal", lane=NORMAL)
    assert sorted(money.names()) == ["batch-0", "batch-1", "batch-2", "batch-3", "batch-4", "normal"]
    short, quota = money.why("batch-5")
    assert short == "cap"
    assert quota is not None
    assert quota.words("Europe/Berlin").startswith("usd cap of lane batch reached: 5.00 of 5.00 $, until 01:00")


def capped(lane: Any, dollars: float) -> Any:
    """Return a lane whose calls may cost so much in a day."""
    return replace(lane, usd_per_day=dollars)


def test_critical_is_counted_and_not_stopped_but_by_a_cap_of_its_own(redis):
    """A chat goes on when batch has used up the day's money; what it costs is money, too."""
    money = Money(redis, usd_per_day=3)
    for i in range(2):
        money.add(f"chat-{i}", 200, lane=CRITICAL)
    money.add("batch")
    assert money.names() == ["chat-0", "chat-1"]
    assert money.spent("all|") == 400
    money.set_cap("lane|critical", 5)
    money.add("chat-2", 600, lane=CRITICAL)
    assert money.names() == []
    assert money.why("chat-2")[1].whose == "critical"


def test_a_settlement_puts_the_true_figure_once(redis):
    """What was reserved too much is there again, and a repetition changes nothing."""
    money = Money(redis, usd_per_day=5)
    money.add("first", 400)
    money.add("second", 400)
    (held,) = money.claim(5)
    for _ in range(3):
        money.settle(money.budget(), held, used(50))
        assert money.spent("all|") == 50
    assert money.names() == ["second"]


def test_what_goes_back_has_cost_nothing(redis):
    """A job that is returned gives back what it reserved, once."""
    money = Money(redis, usd_per_day=5)
    money.add("first", 400)
    money.add("second", 400)
    (held,) = money.claim(5)
    for done in (1, 0):
        assert money.scripts.requeue(held, delay_ms=60_000) == done
        assert money.spent("all|") == 0
    assert money.names() == ["second"]


def test_the_call_of_a_dead_worker_stands_until_its_late_settlement(redis):
    """Nobody knows whether it was made: it may have been billed."""
    money = Money(redis, usd_per_day=10)
    money.add("first", 400)
    (held,) = money.claim(5)
    money.wait_beside(20)
    money.scripts.extend()
    assert money.spent("all|") == 400
    assert money.settle(money.budget(), held, used(100))
    assert money.spent("all|") == 100


def test_a_raised_cap_counts_at_once_and_so_does_a_lowered_one(redis):
    """By the controls, with no worker started anew; a worker that sleeps is woken."""
    money = Money(redis)
    money.set_cap("lane|batch", 1)
    for i in range(5):
        money.add(f"job-{i}")
    assert money.names() == ["job-0"]
    redis.delete("lanes:bell:batch")
    money.set_cap("lane|batch", 3)
    assert redis.exists("lanes:bell:batch")
    assert money.names() == ["job-1", "job-2"]
    money.set_cap("lane|batch", None)
    assert money.names() == ["job-3", "job-4"]


def test_a_cap_that_is_set_at_noon_knows_of_the_morning(redis):
    """What has a price is counted, whether anything is capped or not; of a batch, too."""
    money = Money(redis)
    for i in range(3):
        money.add(f"job-{i}", tenant="ann", batch=("b", 0))
    assert len(money.names()) == 3
    for name in ("all|", "lane|batch", "tenant|ann", "batch|b"):
        money.set_cap(name, 3.5)
        money.add(name, tenant="ann", batch=("b", 0))
        assert money.names() == []
        assert money.why(name)[1].used == 3 * DOLLAR
        money.set_cap(name, None)
        assert money.names() == [name]
        for each in ("all|", "lane|batch", "tenant|ann", "batch|b"):
            redis.hincrby(f"lanes:quota:{each}", "usd", -DOLLAR)


def test_a_tenant_at_its_cap_lets_the_others_pass(redis):
    """However many jobs it has, and it comes back to its turn when its cap is raised."""
    money = Money(redis, tenant_usd_per_day={"ann": 2, "*": 100})
    for i in range(200):
        money.add(f"ann-{i}", tenant="ann")
    money.add("bob-0", tenant="bob")
    money.add("nobody")
    assert sorted(money.names()) == ["ann-0", "ann-1", "bob-0", "nobody"]
    for i in range(9):
        money.add(f"bobs-{i}", tenant="bob")
    assert money.names() == [f"bobs-{i}" for i in range(9)]
    assert money.why("ann-7")[1].whose == "ann"
    money.set_cap("tenant|ann", 3)
    for i in range(5):
        money.add(f"bob-{i + 2}", tenant="bob")
    assert "ann-2" in money.names(3)


def test_a_batch_at_its_cap_lets_the_others_pass_and_none_of_it_fails(redis):
    """Its jobs wait, with the reason, and go in their order when somebody raises it."""
    money = Money(redis)
    for i in range(200):
        money.add(f"doc-{i}", batch=("b", 2 * DOLLAR))
    money.add("other")
    names = []
    for _ in range(8):
        names += money.names()
    assert names == ["doc-0", "doc-1", "other"]
    short, quota = money.why("doc-5")
    assert (short, quota.words("UTC")) == (
        "cap",
        "usd cap of batch b reached: 2.00 of 2.00 $, until somebody raises it",
    )
    assert money.scripts.places("batch") == 198
    money.set_cap("batch|b", 150)
    names = []
    for _ in range(8):
        names += money.names(60)
    assert names == [f"doc-{i}" for i in range(2, 150)]


def test_a_cheaper_answer_lets_more_of_a_batch_go(redis):
    """What was set aside comes back when a settlement makes room, with nobody doing anything."""
    money = Money(redis)
    for i in range(100):
        money.add(f"doc-{i}", batch=("b", 2 * DOLLAR))
    held = [*money.claim(9), *money.claim(9)]
    assert [each.name for each in held] == ["doc-0", "doc-1"]
    money.settle(money.budget(), held[0], used(0))
    assert money.names(9) == ["doc-2"]


def test_a_job_that_is_set_aside_can_be_cancelled_and_purged(redis):
    """It is queued, wherever it stands."""
    money = Money(redis)
    for i in range(5):
        money.add(f"doc-{i}", batch=("b", DOLLAR))
    assert money.names() == ["doc-0"]
    assert money.names() == []
    assert redis.zcard("lanes:parked:batch:b") == 4
    assert CANCEL.run(money.client, (), ("", "doc-2", 60))
    assert redis.zcard("lanes:parked:batch:b") == 3
    dropped, _ = PURGE.run(money.client, (), ("", "batch", 100, "0"))
    assert dropped == 3
    assert not redis.exists("lanes:parked:batch", "lanes:parked:batch:b")


def test_a_call_in_a_slot_is_stopped_by_the_cap_too(redis):
    """With a job in hand and without one: `admit` draws on the same money."""
    money = Money(redis, usd_per_day=2)
    budget = money.budget()
    assert budget.reserve(money.client, BATCH, cost(150), claim=("call-1", "p:call")).granted
    refused = budget.reserve(money.client, BATCH, cost(100), claim=("call-2", "p:call"), waits=True)
    assert not refused.granted
    assert refused.dimension == "cap"
    assert Quota.of(refused.reason).words("UTC").startswith("usd cap reached: 1.50 of 2.00 $")
    assert budget.reserve(money.client, CRITICAL, cost(100), claim=("call-3", "p:call")).granted


def test_without_settings_nothing_of_it_is_there(redis):
    """No key, no field of a job, no word of a ticket."""
    money = Money(redis)
    money.put(money.budget(), BATCH, "job")
    (held,) = money.claim()
    money.settle(money.budget(), held, Usage(1, 1))
    assert ";" not in held.job.ticket
    assert not [key for key in redis.keys("lanes:*") if b"quota" in key or b"caps" in key or b"days" in key]
    packed = redis.eval("return #cmsgpack.unpack(redis.call('HGET', 'lanes:jobs', 'job'))", 0)
    assert packed == 33
