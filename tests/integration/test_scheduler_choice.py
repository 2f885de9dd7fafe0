"""Which job goes next: the order of lanes, models and tenants, and what room they leave for each other."""

import itertools
import math
from collections import Counter
from typing import Any

import pytest
from kit.clock import START_S
from kit.scheduler import Scheduler
from kit.script_client import ScriptClient

from celery_app.broker.packet import cost_header
from celery_app.budget import Budget, Cost
from celery_app.budget.terms import write_terms
from celery_app.lanes import BATCH, CRITICAL, LANES, NORMAL, Lane
from celery_app.metrics.stats import get_queue_stats
from celery_app.routing import COST, MODEL
from celery_app.settings import Limits, Settings

#: A budget that lets one call a second leave, and saves up no more than that.
ONE_A_SECOND = 60

#: Seconds in which such a budget fills up.
REFILL = 1.1

#: Seconds for which a worker's sign of life counts.
SIGN_LASTS = 15


def budget(model: str, rpm: int | None = None, **limits: int) -> Budget:
    """Return a model's own budget."""
    return Budget(f"key:{model}", model, Limits(rpm=rpm, **limits), LANES, sharers=tuple(lane.name for lane in LANES))


FREE = budget("free")


def wait(scheduler: Scheduler, seconds: float) -> None:
    """Let time pass."""
    scheduler.client.now += seconds


def now_ms(scheduler: Scheduler) -> int:
    """Return the server's time."""
    return round((START_S + scheduler.client.now) * 1_000)


def put(scheduler: Scheduler, drawn_on: Budget, lane: Lane, *names: str, **facts: Any) -> None:
    """Put jobs into a lane, named by their ids."""
    for name in names:
        scheduler.put(drawn_on, lane, name, **facts)


class TestOrder:
    """The most important lane first, then turns, then age; whatever cannot go yet shuts its own model only."""

    def test_the_most_important_lane_goes_first_whatever_the_model(self, scheduler):
        """Among the models of a lane it is the job that came first."""
        put(scheduler, budget("a"), BATCH, "b1")
        put(scheduler, budget("b"), NORMAL, "n1")
        put(scheduler, budget("a"), NORMAL, "n2")
        put(scheduler, budget("b"), CRITICAL, "c1")
        put(scheduler, budget("b"), NORMAL, "n3")
        put(scheduler, budget("a"), CRITICAL, "c2")
        assert scheduler.names() == ["c1", "c2", "n1", "n2", "n3", "b1"]

    def test_a_job_whose_budget_is_used_up_lets_other_models_pass(self, scheduler):
        """Those of its own model stay behind it in their order; the other model's come in theirs."""
        slow = budget("slow", ONE_A_SECOND)
        put(scheduler, slow, BATCH, "slow-1", "slow-2")
        put(scheduler, FREE, BATCH, "free-1")
        put(scheduler, slow, BATCH, "slow-3")
        put(scheduler, FREE, BATCH, "free-2")
        assert scheduler.names() == ["slow-1", "free-1", "free-2"]
        for name in ("slow-2", "slow-3"):
            wait(scheduler, REFILL)
            assert scheduler.names() == [name]

    def test_a_job_that_comes_back_stands_where_it_stood(self, scheduler):
        """Before those of its model that wait for the budget, and before those that came meanwhile."""
        slow = budget("slow", ONE_A_SECOND)
        put(scheduler, slow, BATCH, "slow-1", "slow-2")
        (first,) = scheduler.claim()
        assert scheduler.names() == []
        assert scheduler.scripts.requeue(first, delay_ms=100) == 1
        put(scheduler, slow, BATCH, "slow-3")
        for name in ("slow-1", "slow-2", "slow-3"):
            wait(scheduler, REFILL)
            assert scheduler.names() == [name]

    def test_that_a_model_waits_in_one_lane_says_nothing_of_another(self, scheduler):
        """Batch stops at its floor; critical has what is above nothing."""
        shared = budget("m", 600)
        put(scheduler, shared, BATCH, *(f"b{n}" for n in range(9)))
        assert len(scheduler.names()) == 4
        put(scheduler, shared, CRITICAL, "c")
        assert scheduler.names() == ["c"]

    def test_a_long_backlog_of_one_model_holds_up_no_other(self, scheduler):
        """However many jobs stand before it, the next claim finds it."""
        slow = budget("slow", ONE_A_SECOND)
        put(scheduler, slow, BATCH, *(f"slow-{n}" for n in range(1_300)))
        assert scheduler.names() == ["slow-0"]
        put(scheduler, FREE, BATCH, "free")
        assert scheduler.names(1) == ["free"]

    def test_of_many_models_that_wait_none_is_forgotten(self, scheduler):
        """A claim looks at 32 models of a lane; of more, at others each time."""
        for n in range(200):
            put(scheduler, budget(f"slow-{n}", ONE_A_SECOND), BATCH, f"first-{n}", f"second-{n}")
        for _ in range(100):
            scheduler.claim(100)
        put(scheduler, FREE, BATCH, "free")
        assert "free" in [name for _ in range(120) for name in scheduler.names(1)]

    @pytest.mark.parametrize(
        "model", ["calls", "lapsed", 'quo"te', "back\\slash", "модель", "new\nline", "a:b", "{a}|b", "", "%s *?["]
    )
    def test_a_model_of_any_name_has_a_line_and_a_budget(self, scheduler, model):
        """It waits for its own budget, holds up no other, and goes in its time."""
        slow = budget(model, ONE_A_SECOND)
        put(scheduler, slow, BATCH, "slow-1", "slow-2")
        put(scheduler, FREE, BATCH, "free")
        assert scheduler.names() == ["slow-1", "free"]
        wait(scheduler, REFILL)
        assert scheduler.names() == ["slow-2"]

    def test_a_line_is_of_one_model_and_one_tenant(self, scheduler):
        """Names with colons do not run into each other."""
        put(scheduler, budget("a:b", ONE_A_SECOND), BATCH, "one-1", "one-2", tenant="c")
        put(scheduler, budget("a", ONE_A_SECOND), BATCH, "two-1", "two-2", tenant="b:c")
        assert sorted(scheduler.names()) == ["one-1", "two-1"]

    @pytest.mark.parametrize("terms", ["tomorrow", "{}", "[]", "7", '{"name": 7}', ""])
    def test_terms_that_make_no_sense_hold_up_nobody(self, scheduler, terms):
        """What somebody else wrote there is asked for anew; the other models go on."""
        put(scheduler, budget("m"), BATCH, "m")
        put(scheduler, FREE, BATCH, "free")
        scheduler.raw.hset("lanes:terms", "batch:m", terms)
        assert scheduler.names() == ["free"]
        assert scheduler.scripts.unknown == [("batch", "m")]
        scheduler.raw.hset("lanes:terms", "batch:m", budget("m").terms)
        assert scheduler.names() == ["m"]


class TestRoom:
    """Who cannot go yet finds room left when he can."""

    def test_a_large_prompt_is_not_starved_by_small_ones(self, scheduler):
        """Small jobs behind it, in its lane and below, are queued without end; it goes once its tokens are there."""
        tokens = budget("m", itpm=6_000)
        put(scheduler, tokens, NORMAL, "before", cost=Cost(input_tokens=1_000, output_tokens=0))
        assert scheduler.names() == ["before"]
        put(scheduler, tokens, NORMAL, "large", cost=Cost(input_tokens=1_200, output_tokens=0))
        small, found = itertools.count(), list[str]()
        for _ in range(30):
            for lane in (NORMAL, BATCH):
                put(scheduler, tokens, lane, f"small-{next(small)}", cost=Cost(input_tokens=10, output_tokens=0))
            found += scheduler.names(1)
            wait(scheduler, 0.5)
        assert found[0] == "large"

    @pytest.mark.parametrize("tokens", [-100_000, 10**400, -math.inf, math.nan])
    def test_a_cost_that_makes_no_sense_gives_the_budget_nothing(self, scheduler, tokens):
        """Nor does it take from it: a foreign producer's header may say anything."""
        drawn_on, half = budget("m", itpm=6_000), Cost(input_tokens=700, output_tokens=0)
        put(scheduler, drawn_on, CRITICAL, "one", "two", "three", cost=half)
        assert scheduler.names() == ["one", "two"]
        put(scheduler, drawn_on, NORMAL, "foreign", cost=Cost(input_tokens=tokens))  # type: ignore[arg-type]
        assert scheduler.names() == ["foreign"]
        assert scheduler.names() == []
        wait(scheduler, 7.1)
        assert scheduler.names() == ["three"]

    def test_a_lane_above_counts_while_a_live_worker_serves_it(self, scheduler):
        """What is left for a job that nobody takes would be lost: 15 s after its last sign of life nothing is left."""
        shared = budget("m", ONE_A_SECOND)
        put(scheduler, shared, CRITICAL, "c")
        put(scheduler, shared, BATCH, "b1", "b2")
        scheduler.raw.zadd("lanes:workers:critical", {"w": now_ms(scheduler)})
        assert scheduler.names(queues=("batch",)) == []
        wait(scheduler, SIGN_LASTS - 1)
        assert scheduler.names(queues=("batch",)) == []
        wait(scheduler, 2)
        assert scheduler.names(queues=("batch",)) == ["b1"]
        scheduler.raw.zadd("lanes:workers:critical", {"w": now_ms(scheduler)})
        wait(scheduler, REFILL)
        assert scheduler.names(queues=("batch",)) == []
        assert scheduler.names() == ["c"]

    def test_of_a_crowd_that_waits_one_comes_for_each_job(self, scheduler):
        """Each is told another time, a refill later than the one before, and finds a job then; all else sleep."""
        shared = budget("m", 600)
        put(scheduler, shared, CRITICAL, *(f"c{n}" for n in range(200)))
        assert len(scheduler.names()) == 9
        workers = [scheduler.scripts, *(scheduler.worker() for _ in range(50))]
        for worker in workers:
            assert scheduler.claim(scripts=worker, sleep_ms=250) == []
        waits = sorted(scheduler.wait_s(worker) for worker in workers)
        woken = [seconds for seconds in waits if seconds < 0.25]
        assert len(woken) == 3
        assert all(later - earlier >= 0.9 / 9.8 for earlier, later in itertools.pairwise(woken))
        assert all(seconds == 0.25 for seconds in waits[3:])
        start = scheduler.client.now
        for worker in sorted(workers, key=scheduler.wait_s)[:3]:
            scheduler.client.now = start + scheduler.wait_s(worker)
            assert len(scheduler.claim(scripts=worker)) == 1

    def test_a_claim_leaves_no_more_than_a_wakeup_for_what_is_left(self, scheduler):
        """As a new job does, a worker that could have had more wakes one; one that took all wakes nobody."""
        put(scheduler, FREE, BATCH, "b1", "b2")
        assert scheduler.raw.delete("lanes:bell:batch") == 1
        assert scheduler.names(1) == ["b1"]
        assert scheduler.raw.llen("lanes:bell:batch") == 1
        scheduler.raw.delete("lanes:bell:batch")
        assert scheduler.names(1) == ["b2"]
        assert scheduler.raw.llen("lanes:bell:batch") == 0


class TestShares:
    """What a lane is guaranteed of the slots, where no budget holds anybody back."""

    def test_batch_gets_its_share_of_the_slots_beside_endless_normal(self, scheduler):
        """Once its head has waited for long, one slot in twenty that come free."""
        assert self.race(scheduler, NORMAL, BATCH, age=60)["batch"] == pytest.approx(20, abs=1)

    def test_normal_and_batch_get_theirs_together(self, scheduler):
        """Two lanes below one that is endless do not take each other's share."""
        for n in range(400):
            put(scheduler, FREE, NORMAL, f"n{n}", age=60)
            put(scheduler, FREE, BATCH, f"b{n}", age=60)
        served = self.served(scheduler, 200)
        assert served["batch"] == pytest.approx(10, abs=1)

    @pytest.mark.parametrize("lane", [NORMAL, BATCH])
    def test_nobody_goes_before_critical(self, scheduler, lane):
        """A person waits; what is below has what critical leaves."""
        assert self.race(scheduler, CRITICAL, lane, age=600)[lane.name] == 0

    def test_a_share_is_of_time_where_calls_differ(self, scheduler):
        """In a budget of tokens, a batch of prompts ten times as large gets one call in two hundred."""
        tokens = budget("m", itpm=60_000_000)
        for n in range(1_000):
            put(scheduler, tokens, NORMAL, f"n{n}", cost=Cost(input_tokens=100, output_tokens=0))
            put(scheduler, tokens, BATCH, f"b{n}", cost=Cost(input_tokens=1_000, output_tokens=0), age=60)
        served = self.served(scheduler, 1_000)
        assert served["batch"] * 1_000 / (served["normal"] * 100) == pytest.approx(0.05, abs=0.02)

    def race(self, scheduler: Scheduler, above: Lane, below: Lane, age: float) -> Counter[str]:
        """Let two lanes with endless backlogs race for 400 slots."""
        for n in range(400):
            put(scheduler, FREE, above, f"above-{n}")
            put(scheduler, FREE, below, f"below-{n}", age=age)
        return self.served(scheduler, 400)

    @staticmethod
    def served(scheduler: Scheduler, slots: int) -> Counter[str]:
        """Hand out jobs one by one, and count them by lane."""
        counts: Counter[str] = Counter()
        for _ in range(slots):
            (held,) = scheduler.claim()
            scheduler.scripts.ack(held)
            counts[held.queue] += 1
        return counts


class TestTenants:
    """Within a lane, tenants take turns, in the budget's time and by their weights."""

    def test_a_tenant_with_few_jobs_does_not_wait_for_one_with_many(self, scheduler):
        """Twenty tenants with ten jobs each behind one with 3,000 are done when 210 jobs have gone."""
        put(scheduler, FREE, BATCH, *(f"many-{n}" for n in range(3_000)), tenant="many")
        few = {f"t{t}-{n}" for t in range(20) for n in range(10)}
        for t in range(20):
            put(scheduler, FREE, BATCH, *(f"t{t}-{n}" for n in range(10)), tenant=f"t{t}")
        assert few <= set(self.served(scheduler, 212))

    def test_one_tenants_jobs_go_in_their_order(self, scheduler):
        """Turns are between tenants; by priority and age among those of one."""
        for n in range(20):
            put(scheduler, FREE, BATCH, f"a-{n:02}", tenant="a")
            put(scheduler, FREE, BATCH, f"b-{n:02}", tenant="b")
        order = self.served(scheduler, 40)
        assert [name for name in order if name.startswith("a")] == [f"a-{n:02}" for n in range(20)]
        assert [name for name in order if name.startswith("b")] == [f"b-{n:02}" for n in range(20)]

    @pytest.mark.parametrize("model", ["m", "other"])
    def test_weights_are_kept(self, scheduler, model):
        """Three to one within five per cent, whether the tenants use one model or two."""
        scheduler.raw.hset("lanes:weights", "acme", 3)
        put(scheduler, budget("m"), BATCH, *(f"acme-{n}" for n in range(400)), tenant="acme")
        put(scheduler, budget(model), BATCH, *(f"other-{n}" for n in range(400)), tenant="other")
        order = self.served(scheduler, 400)
        assert sum(name.startswith("acme") for name in order) == pytest.approx(300, rel=0.05)

    def test_turns_are_counted_in_the_budgets_time(self, scheduler):
        """A tenant whose prompts are five times as large gets a fifth of the jobs, and the same time."""
        tokens = budget("m", itpm=60_000_000)
        put(
            scheduler,
            tokens,
            BATCH,
            *(f"s-{n}" for n in range(300)),
            tenant="s",
            cost=Cost(input_tokens=100, output_tokens=0),
        )
        put(
            scheduler,
            tokens,
            BATCH,
            *(f"l-{n}" for n in range(300)),
            tenant="l",
            cost=Cost(input_tokens=500, output_tokens=0),
        )
        order = self.served(scheduler, 240)
        assert sum(name.startswith("l") for name in order) == pytest.approx(40, abs=2)

    def test_a_model_that_was_held_back_gives_nobody_more_than_his_turns(self, scheduler):
        """The lane's time does not go back to where a waiting tenant's turn stood: who is new starts at the present."""
        slow = budget("slow", ONE_A_SECOND)
        put(scheduler, slow, BATCH, "slow-1", "slow-2", "slow-3", tenant="waiting")
        put(scheduler, FREE, BATCH, *(f"a-{n}" for n in range(400)), tenant="a")
        assert scheduler.names(1) == ["slow-1"]
        self.served(scheduler, 200)
        wait(scheduler, REFILL)
        assert scheduler.names(1) == ["slow-2"]
        put(scheduler, FREE, BATCH, *(f"b-{n}" for n in range(100)), tenant="b")
        assert sum(name.startswith("b") for name in self.served(scheduler, 100)) == pytest.approx(50, abs=2)

    def test_tenants_leave_nothing_behind_but_their_turns(self, scheduler):
        """Of those, 10,000 of a lane at most are kept, however many tenants there ever were."""
        put(scheduler, budget("slow", ONE_A_SECOND), BATCH, "slow-1", "slow-2", tenant="waiting")
        assert scheduler.names(1) == ["slow-1"]
        scheduler.raw.zadd("lanes:turns:batch", {f"earlier-{n}": 1 + n for n in range(20_000)})
        for n in range(64):
            put(scheduler, FREE, BATCH, f"j{n}", tenant=f"tenant-{n}")
            self.served(scheduler, 1)
        assert scheduler.raw.zcard("lanes:turns:batch") == pytest.approx(10_000, abs=64)
        assert scheduler.raw.keys("lanes:line:*") == [b"lanes:line:batch:4:slow:waiting"]
        assert scheduler.raw.keys("lanes:tenants:*") == [b"lanes:tenants:batch:slow"]

    @staticmethod
    def served(scheduler: Scheduler, number: int) -> list[str]:
        """Hand out jobs one after the other."""
        names = []
        for _ in range(number):
            (held,) = scheduler.claim()
            scheduler.scripts.ack(held)
            names.append(held.name)
        return names


class TestLimitedJobs:
    """Jobs that wait for a budget are jobs of their lane, for whoever counts and drops them."""

    @pytest.fixture
    def scripts(self, lanes_app, client):
        """Three jobs of which the budget has let one go."""
        drawn = Settings(limits=Limits(rpm=1), api_keys=lanes_app.lanes_settings_given.api_keys)
        write_terms(client, "", drawn, [("batch", "slow")])
        for n in range(3):
            headers = {MODEL: "slow", COST: cost_header(Cost())}
            lanes_app.send_task("kit.job", task_id=f"j{n}", queue="batch", ignore_result=True, headers=headers)
        scripts = ScriptClient(client)
        assert scripts.names() == ["j0"]
        return scripts

    def test_they_are_counted_and_purged(self, lanes_app, scripts):
        """Depth and purge know of them."""
        assert get_queue_stats(lanes_app)["lanes"]["batch"]["depth"] == 2
        with lanes_app.connection_for_write() as connection:
            assert connection.default_channel.queue_purge("batch") == 2
        assert get_queue_stats(lanes_app)["lanes"]["batch"]["depth"] == 0
        assert scripts.names() == []

    def test_jobs_of_many_models_are_purged(self, lanes_app, client):
        """All of them, although no script looks at more than 32 models of a lane in one go."""
        for n in range(200):
            lanes_app.send_task("kit.job", queue="batch", ignore_result=True, headers={MODEL: f"model-{n}"})
        lanes_app.send_task("kit.job", queue="batch", ignore_result=True, countdown=60)
        with lanes_app.connection_for_write() as connection:
            assert connection.default_channel.queue_purge("batch") == 201
        assert not client.exists("lanes:jobs", "lanes:texts", "lanes:models:batch", "lanes:scheduled")

    def test_a_deleted_queue_leaves_nothing(self, lanes_app, client, scripts):
        """What waits goes with it; what a worker holds is the worker's."""
        with lanes_app.connection_for_write() as connection:
            queue = lanes_app.amqp.queues["batch"](connection.default_channel)
            queue.declare()  # kombu deletes what it knows the bindings of
            queue.delete()
        assert scripts.places("batch") == 0
        assert client.hkeys("lanes:jobs") == [b"j0"]

    def test_a_lane_with_jobs_that_wait_is_not_empty(self, lanes_app, scripts):
        """Deleting a queue if it is empty leaves it."""
        with lanes_app.connection_for_write() as connection:
            queue = lanes_app.amqp.queues["batch"](connection.default_channel)
            queue.declare()
            queue.delete(if_empty=True)
        assert scripts.places("batch") == 2


@pytest.mark.parametrize("suspects", [3, 100])
def test_suspects_of_one_tenant_hide_no_others_jobs(scheduler, suspects):
    """Two processes have died while they held them; one that holds one of them works on beside it."""
    scheduler.raw.hset("lanes:weights", "killer", 1_000)
    put(scheduler, FREE, BATCH, *(f"served-{n}" for n in range(5)), tenant="other")
    assert all(scheduler.scripts.ack(held) for held in scheduler.claim(5))
    wait(scheduler, 11)  # from then on there is no limit
    put(scheduler, FREE, BATCH, *(f"killer-{n}" for n in range(suspects)), tenant="killer")
    for _ in range(2):
        assert len(scheduler.names(suspects, scripts=scheduler.worker())) == suspects
        scheduler.wait_beside(18)
    put(scheduler, FREE, BATCH, "other", tenant="other")

    assert scheduler.names(1, scripts=scheduler.worker()) == ["killer-0"]
    assert scheduler.names(1, scripts=scheduler.worker(), has_suspect=True) == ["other"]
