"""What operators change while all runs, by the scripts that decide."""

from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import example, given, strategies as st
from kit.client_rig import params
from kit.clock import ClockedRedis
from kit.scheduler import Scheduler

from celery_app import controls
from celery_app.budget import Budget, Cost, budget_for
from celery_app.budget.variant import split_model
from celery_app.client import Client
from celery_app.connections.redis_client import redis_client
from celery_app.errors import InvalidControl, LaneDraining, LaneFull
from celery_app.lanes import BATCH, CRITICAL, LANES, NORMAL
from celery_app.metrics.in_force import in_force
from celery_app.metrics.stats import get_queue_stats
from celery_app.scheduler.scripts import CONTROL
from celery_app.settings import Limits, Settings

#: By whom all is done here.
ANN = "ann@web1"

#: Jobs that nothing but the limit holds back.
PLENTY = 100


@pytest.fixture
def scheduler(valkey, broker_url):
    """Lanes whose clock stands still."""
    assert broker_url
    with valkey.client() as client:
        yield Scheduler(ClockedRedis(client))


def control(scheduler: Scheduler, *changes: tuple[str, Any], lasts_ms: int = 0) -> list[int]:
    """Change something, by the scheduler's clock; return the revision and how many have changed."""
    parts = [part for name, value in changes for part in (name, value, lasts_ms)]
    return list(CONTROL.run(scheduler.client, (), ["", ANN, *parts]))


def budget(model: str = "m", rpm: int | None = 600_000, **limits: int) -> Budget:
    """Return a model's own budget; unless a test says otherwise, its limit is far away."""
    return Budget(f"key:{model}", model, Limits(rpm=rpm, **limits), LANES, sharers=tuple(lane.name for lane in LANES))


def put(scheduler: Scheduler, drawn_on: Budget, lane: Any = BATCH, number: int = PLENTY, **facts: Any) -> list[str]:
    """Put so many jobs into a lane."""
    return [scheduler.put(drawn_on, lane, **facts) for _ in range(number)]


class TestPause:
    """A paused lane starts nothing; all else is as before."""

    def test_nothing_starts_until_it_is_resumed(self, scheduler):
        """The other lanes go on, and what was published meanwhile goes afterwards."""
        put(scheduler, budget(), BATCH, 3)
        control(scheduler, ("pause|batch|", 1))
        put(scheduler, budget(), NORMAL, 2)
        put(scheduler, budget(), BATCH, 3)
        assert [held.queue for held in scheduler.claim(PLENTY)] == ["normal"] * 2
        control(scheduler, ("pause|batch|", ""))
        assert len(scheduler.claim(PLENTY)) == 6

    def test_it_ends_by_itself(self, scheduler):
        """After its time, without anybody doing anything."""
        put(scheduler, budget(), BATCH, 1)
        control(scheduler, ("pause|batch|", 1), lasts_ms=600_000)
        scheduler.client.now += 599
        assert scheduler.claim() == []
        scheduler.client.now += 2
        assert len(scheduler.claim()) == 1

    def test_only_models_like_the_pattern_wait(self, scheduler):
        """Variants of a model are of that model."""
        for model in ("claude-opus-4", "claude-opus-4+fast", "claude-haiku-4"):
            put(scheduler, budget(model), BATCH, 1)
        control(scheduler, ("pause|batch|*opus-4", 1))
        assert [held.job.model for held in scheduler.claim(PLENTY)] == ["claude-haiku-4"]

    def test_no_room_is_left_for_a_paused_head(self, scheduler):
        """A lane below uses the whole budget while the one above it is paused."""
        tokens = budget(itpm=6_000)
        put(scheduler, tokens, NORMAL, 1, cost=Cost(input_tokens=1_500, output_tokens=0))
        put(scheduler, tokens, BATCH, 1, cost=Cost(input_tokens=500, output_tokens=0))
        assert [held.queue for held in scheduler.claim(PLENTY)] == ["normal"]
        scheduler.client.now += 14
        put(scheduler, tokens, NORMAL, 1, cost=Cost(input_tokens=1_500, output_tokens=0))
        assert scheduler.claim(PLENTY) == []
        control(scheduler, ("pause|normal|", 1))
        assert [held.queue for held in scheduler.claim(PLENTY)] == ["batch"]

    def test_a_paused_lane_earns_no_share(self, scheduler):
        """What it did not want it does not get afterwards."""
        put(scheduler, budget(), BATCH, 1, age=120.0)
        put(scheduler, budget(), NORMAL)
        control(scheduler, ("pause|batch|", 1))
        scheduler.claim(PLENTY)
        assert scheduler.raw.hget("lanes:credits", "batch") is None

    def test_deadlines_pass_all_the_same(self, scheduler):
        """A paused job whose time is over ends, and whoever waits for it is told."""
        put(scheduler, budget(), CRITICAL, 1, left=5.0)
        control(scheduler, ("pause|critical|", 1))
        scheduler.client.now += 6
        assert scheduler.claim() == []
        assert scheduler.scripts.places("critical") == 0
        assert scheduler.raw.zcard("lanes:ended") == 1

    def test_a_jobs_first_call_goes_back_and_a_later_one_does_not(self, scheduler):
        """What has begun ends; a call outside of any job waits."""
        put(scheduler, budget(""), BATCH, 1, cost=Cost(requests=0))
        (held,) = scheduler.claim()
        control(scheduler, ("pause|batch|*opus*", 1), lasts_ms=5_000)
        opus, job = budget("opus"), (held.tag, held.token)
        first = opus.reserve(scheduler.client, BATCH, Cost(), claim=("call-1", "p:call"), job=job)
        assert (first.granted, first.dimension, first.wait_s) == (False, "paused", 5)
        assert opus.reserve(scheduler.client, BATCH, Cost(), claim=("call-2", "p:call"), job=job, waits=True).granted
        assert not opus.reserve(scheduler.client, BATCH, Cost(), claim=("call-3", "p:call"), waits=True).granted
        assert opus.reserve(scheduler.client, NORMAL, Cost(), claim=("call-4", "p:call"), waits=True).granted

    @given(pattern=st.text("ab*?[!]-.+%^$", max_size=8), model=st.text("ab-.+%]^$", min_size=1, max_size=6))
    @example(pattern="[!a]*b", model="ba-b")
    @example(pattern="[a-b]?", model="b%")
    @example(pattern="*a*ab", model="aab")
    def test_patterns_are_those_of_the_settings(self, valkey, pattern, model):
        """A pattern means what Python's fnmatch makes of it."""
        with valkey.client() as client:
            client.flushdb()
            scheduler = Scheduler(client)
            scheduler.put(budget(model), BATCH)
            if pattern:
                control(scheduler, (f"pause|batch|{pattern}", 1))
            fits = fnmatchcase(model, pattern) or fnmatchcase(split_model(model)[0], pattern)
            assert (scheduler.claim() == []) == (fits and pattern != "")

    @pytest.mark.parametrize("pattern", ["*a" * 60 + "b", "a?*" * 50])
    def test_no_pattern_takes_long(self, scheduler, pattern):
        """Many stars and a long name cost the server less than a millisecond or two."""
        scheduler.put(budget("a" * 250), BATCH)
        control(scheduler, (f"pause|batch|{pattern}", 1))
        scheduler.raw.config_resetstat()
        scheduler.claim()
        assert scheduler.raw.info("commandstats")["cmdstat_evalsha"]["usec"] < 1_000_000


class TestLimits:
    """Limits that are set count from the next job on, whatever terms a worker brings along."""

    def admitted(self, scheduler: Scheduler, seconds: int = 10) -> int:
        """Return how many jobs leave within some seconds, after what has been saved up."""
        scheduler.claim(10_000)
        total = 0
        for _ in range(seconds * 4):
            scheduler.client.now += 0.25
            total += len(scheduler.claim(10_000))
        return total

    @pytest.mark.parametrize(("before", "rpm"), [(None, 600), (60, 600), (6_000, 600)])
    def test_a_limit_counts_at_once(self, scheduler, before, rpm):
        """Also where none was known, and where there was a lower or a higher one."""
        put(scheduler, budget(rpm=before), BATCH, 2_000)
        scheduler.claim(1)
        control(scheduler, ("model|rpm|m", rpm))
        assert self.admitted(scheduler) == pytest.approx(rpm / 6 * 0.98, abs=6)

    def test_a_limit_that_is_reset_is_the_environments_again(self, scheduler):
        """At once, too."""
        put(scheduler, budget(rpm=60), BATCH, 2_000)
        control(scheduler, ("model|rpm|m", 6_000))
        assert self.admitted(scheduler, 2) > 150
        control(scheduler, ("model|rpm|m", ""))
        assert self.admitted(scheduler, 10) == pytest.approx(10, abs=2)

    def test_no_limit_takes_the_environments_one_away(self, scheduler):
        """Value 0 is none."""
        put(scheduler, budget(rpm=60, itpm=10**9))
        control(scheduler, ("model|rpm|m", 0), ("model|concurrency|m", 30))
        assert len(scheduler.claim(PLENTY)) == 27  # batch leaves a tenth

    def settings(self) -> Settings:
        """Return limits of the environment: for all, for some, and for a variant."""
        patterns = {"*haiku*": Limits(rpm=60, itpm=10**6), "*opus*+fast": Limits(rpm=60)}
        return Settings(limits=Limits(rpm=60), model_limits=patterns)

    @pytest.mark.parametrize(
        ("name", "model", "counts"),
        [
            ("*haiku*", "claude-haiku", True),  # the environment's pattern of that name
            ("*", "claude-haiku", False),  # for those that no pattern of the environment names
            ("*", "claude-sonnet", True),
            ("*sonnet*", "claude-sonnet", True),
            ("claude-*", "claude-haiku", True),  # before the environment's patterns
            ("*sonnet*", "claude-sonnet+fast", True),  # a variant that nobody names may use as much as its model
            ("*opus*", "claude-opus+fast", False),  # and one that is named has a limit of its own
            ("*opus*+fast", "claude-opus+fast", True),
            ("*opus*+fast", "claude-opus", False),
        ],
    )
    def test_whose_limit_it_is(self, scheduler, name, model, counts):
        """A pattern that is set counts before the environment's, but for one that names a variant."""
        put(scheduler, budget_for(self.settings(), BATCH, model), BATCH, 2_000)
        control(scheduler, (f"model|rpm|{name}", 1_200))
        assert self.admitted(scheduler, 5) == pytest.approx(98 if counts else 5, abs=2)

    def test_the_longest_pattern_counts(self, scheduler):
        """In whatever order they were set."""
        put(scheduler, budget("claude-haiku-4"), BATCH, 2_000)
        control(scheduler, ("model|rpm|*haiku*", 60), ("model|rpm|*haiku-4*", 1_200))
        control(scheduler, ("model|rpm|claude*", 60))
        assert self.admitted(scheduler, 5) == pytest.approx(98, abs=2)

    def test_models_of_a_pattern_share_its_limit(self, scheduler):
        """As they do where the environment names it."""
        for model in ("haiku-1", "haiku-2", "haiku-3"):
            put(scheduler, budget(model), BATCH, 1_000)
        control(scheduler, ("model|rpm|haiku*", 600))
        assert self.admitted(scheduler) == pytest.approx(98, abs=3)

    def test_what_was_not_set_stays(self, scheduler):
        """A limit that the environment names, of another dimension, holds on in the new budget."""
        put(
            scheduler,
            budget_for(self.settings(), BATCH, "haiku"),
            BATCH,
            500,
            cost=Cost(input_tokens=100_000, output_tokens=0),
        )
        control(scheduler, ("model|rpm|hai*", 6_000))
        assert self.admitted(scheduler, 60) == pytest.approx(10, abs=2)

    def test_a_call_that_was_on_its_way_leaves_nothing_behind(self, scheduler):
        """It left one budget and is settled with another; it is in flight in neither."""
        drawn_on = budget(rpm=600, concurrency=5)
        put(scheduler, drawn_on, BATCH, 3)
        held = scheduler.claim(3)
        control(scheduler, ("model|rpm|m*", 1_200))
        for each in held:
            scheduler.settle(drawn_on, each)
            assert scheduler.scripts.ack(each) == 1
        assert [key for key in scheduler.raw.keys("lanes:budget:*:calls") if scheduler.raw.scard(key)] == []

    def test_a_lanes_floor_counts_at_once(self, scheduler):
        """What batch leaves of the burst for the others is what was set."""
        drawn_on = budget(itpm=400_000)
        put(scheduler, drawn_on, BATCH, 200, cost=Cost(input_tokens=980, output_tokens=0))
        assert len(scheduler.claim(PLENTY)) == 50
        control(scheduler, ("lane|floor|batch", 0.2))
        assert len(scheduler.claim(PLENTY)) == 30

    def test_a_tenants_weight_counts_at_once(self, scheduler):
        """Three to one."""
        put(scheduler, budget(), BATCH, 80, tenant="acme")
        put(scheduler, budget(), BATCH, 80, tenant="other")
        control(scheduler, ("weight|tenant|acme", 3))
        facts = [bytes(scheduler.raw.hget("lanes:jobs", held.tag) or b"") for held in scheduler.claim(40)]
        assert sum(b"acme" in each for each in facts) in {29, 30, 31}


class TestRecord:
    """Who has set what, and when."""

    def test_repeating_changes_nothing(self, scheduler):
        """The revision, and who was first, stay."""
        assert control(scheduler, ("model|rpm|m", 60), ("pause|batch|", 1)) == [1, 2]
        before = scheduler.raw.hgetall("lanes:controls")
        scheduler.client.now += 60
        assert control(scheduler, ("model|rpm|m", 60), ("pause|batch|", 1)) == [1, 0]
        assert scheduler.raw.hgetall("lanes:controls") == before
        assert control(scheduler, ("model|rpm|m", "")) == [2, 1]

    def test_what_is_over_is_forgotten(self, scheduler):
        """A pause that has ended by itself goes with the next change; the revision never goes back."""
        control(scheduler, ("pause|batch|", 1), lasts_ms=1_000)
        scheduler.client.now += 2
        control(scheduler, ("model|rpm|m", 60))
        control(scheduler, ("model|rpm|m", ""))
        assert scheduler.raw.hgetall("lanes:controls") == {b"revision": b"3"}

    def test_there_are_not_too_many(self, scheduler):
        """Each decision reads them; what is too much is refused as a whole."""
        for number in range(25):
            control(scheduler, *((f"model|rpm|m-{number}-{each}", 60) for each in range(8)))
        revision, _ = control(scheduler)
        assert control(scheduler, ("model|rpm|one more", 60)) == [revision, -1]
        assert control(scheduler, ("model|rpm|m-0-0", 61)) == [revision + 1, 1]

    @pytest.mark.parametrize("nonsense", ["", "x", "\x81", "7"])
    def test_what_makes_no_sense_is_as_nothing(self, scheduler, nonsense):
        """Somebody else has written there; jobs go on."""
        put(scheduler, budget(), BATCH, 1)
        scheduler.raw.hset("lanes:controls", "decision", nonsense.encode("latin-1"))
        assert len(scheduler.claim()) == 1

    def test_what_is_in_force_says_where_it_comes_from(self, lanes_app):
        """A default, a setting, or somebody some time ago."""
        controls.set_limits(lanes_app, {"floor": "0.6"}, lane="batch", by=ANN)
        controls.set_limits(lanes_app, {"rpm": 2_000, "itpm": None}, model="*haiku*", new=True, by=ANN)
        controls.set_limits(lanes_app, {"weight": 3}, tenant="acme", by=ANN)
        rows = {(row.kind, row.name, row.field): row for row in in_force(lanes_app)}
        assert rows["lane", "batch", "floor"].value == 0.6
        assert rows["lane", "batch", "floor"].origin.startswith(f"{ANN}, ")
        assert rows["lane", "batch", "share"].origin == "default"
        assert rows["model", "*haiku*", "itpm"].value is None
        assert rows["tenant", "acme", "weight"].value == 3
        controls.reset_limits(lanes_app, ["rpm"], model="*haiku*")
        left = [(each.name, each.field) for each in controls.read_controls(lanes_app)]
        assert left == [("*haiku*", "itpm"), ("batch", "floor"), ("acme", "weight")]
        controls.pause(lanes_app, "batch", by=ANN)
        controls.reset_limits(lanes_app)
        assert [each.kind for each in controls.read_controls(lanes_app)] == ["pause"]


class TestRefused:
    """What is wrong is said, with the nearest that would be right."""

    @pytest.mark.parametrize(
        ("act", "words"),
        [
            (lambda app: controls.pause(app, "batsch"), "'batsch' is no lane, did you mean 'batch'"),
            (lambda app: controls.pause(app, "batch", model="*hauku*"), "the nearest known is 'claude-haiku'"),
            (lambda app: controls.pause(app, "batch", for_s=-1), "lasts for some seconds"),
            (lambda app: controls.set_limits(app, {"rpn": 5}, model="*"), "did you mean 'rpm'"),
            (lambda app: controls.set_limits(app, {"rpm": 0}, model="*"), "rpm: input should be greater than 0"),
            (lambda app: controls.set_limits(app, {"rpm": 5}, model="*hauku*"), "the nearest known is 'claude-haiku'"),
            (lambda app: controls.set_limits(app, {"floor": 1.5}, lane="batch"), "floor: input should be less than 1"),
            (lambda app: controls.set_limits(app, {"capacity": None}, lane="batch"), "needs one"),
            (lambda app: controls.set_limits(app, {"weight": 1}, lane="batch"), "a lane has no 'weight'"),
            (lambda app: controls.set_limits(app, {"weight": "x"}, tenant="acme"), "weight: "),
            (lambda app: controls.set_limits(app, {"rpm": 5}), "Name one thing"),
            (lambda app: controls.set_limits(app, {}, model="*"), "nothing to set"),
            (lambda app: controls.reset_limits(app, ["rpm"]), "whose rpm"),
        ],
    )
    def test_it_says_what_would_be_right(self, lanes_app, act, words):
        """Nothing has changed then."""
        redis_client(lanes_app).hset("lanes:terms", "batch:claude-haiku", "{}")
        with pytest.raises(InvalidControl) as caught:
            act(lanes_app)
        assert words in str(caught.value)
        assert controls.read_controls(lanes_app) == []


class TestTold:
    """Who waits is told who has paused it, and until when."""

    def test_a_lane_and_a_job_name_the_pause(self, lanes_app):
        """With who did it and how long it lasts, or how to end it."""
        job = Client(lanes_app).submit(lane="batch", **params())
        controls.pause(lanes_app, "batch", for_s=600, by=ANN)
        waits = get_queue_stats(lanes_app)["lanes"]["batch"]["waiting_for"]
        assert waits == f"the end of the pause by {ANN}, in 10 min; no worker serves batch"
        assert Client(lanes_app).explain(job)["waiting_for"] == waits
        controls.pause(lanes_app, "batch", by=ANN)
        told = Client(lanes_app).explain(job)
        assert str(told["waiting_for"]).startswith(f"`lanes resume batch`, since {ANN} paused it 0.")
        assert told["expected_s"] is None
        controls.resume(lanes_app, "batch")
        assert Client(lanes_app).explain(job)["waiting_for"] == "no worker serves batch"

    def test_a_job_of_another_model_does_not_wait_for_it(self, lanes_app):
        """The lane says what is paused in it."""
        job = Client(lanes_app).submit(lane="batch", **params())
        controls.pause(lanes_app, "batch", model="*opus*", new=True, by=ANN)
        assert "of *opus*" in get_queue_stats(lanes_app)["lanes"]["batch"]["waiting_for"]
        assert Client(lanes_app).explain(job)["waiting_for"] == "no worker serves batch"


class TestPublishers:
    """What is set of a lane counts for who submits, too."""

    def test_a_lanes_capacity_counts_at_once(self, lanes_app):
        """One job, many, and the error names the number that counts."""
        client = Client(lanes_app)
        controls.set_limits(lanes_app, {"capacity": 2}, lane="batch")
        for _ in range(2):
            client.submit(lane="batch", wait=0, **params())
        with pytest.raises(LaneFull, match="capacity 2;"):
            client.submit(lane="batch", wait=0, **params())
        with pytest.raises(LaneFull, match="capacity 2;"):
            client.submit_many([params()], lane="batch", wait=0)
        controls.reset_limits(lanes_app)
        client.submit(lane="batch", wait=0, **params())

    def test_a_lane_that_is_drained_takes_no_jobs(self, lanes_app):
        """Whoever submits one hears so at once, and who drains it."""
        client = Client(lanes_app)
        controls.drain(lanes_app, "batch", by=ANN)
        with pytest.raises(LaneDraining, match=ANN):
            client.submit(lane="batch", **params())
        with pytest.raises(LaneDraining, match=ANN):
            client.submit_many([params()], lane="batch")
        client.submit(lane="normal", **params())
        controls.fill_again(lanes_app, "batch")
        client.submit(lane="batch", **params())
        assert get_queue_stats(lanes_app)["queue_depth"] == 2
