"""A day of mixed load, an API limit, and workers that follow the slots the exporter says are wanted.

Only time is not real: a day takes a minute or two. Every publication, claim and settlement is the scheduler's own
script on a real server, and what the autoscaler reads is what the real exporter collects. It does as KEDA and
Kubernetes do with deploy/kubernetes: a pod has some slots, is ready a minute after it is wanted, and goes when fewer
were wanted for five minutes.

The same day is run again with pods by the length of the queue, as is usual. Needs the extras `embedded` and `exporter`.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import sys
from collections import defaultdict, deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from kit.bench import bench_broker, main
from kit.clock import START_S, ClockedRedis
from kit.scheduler import Scheduler

from celery_app.budget import Budget, Usage
from celery_app.lanes import LANES, Lane
from celery_app.metrics.events import JobEvent
from celery_app.metrics.prometheus import LanesCollector
from celery_app.metrics.store import record
from celery_app.metrics.tally import Tally
from celery_app.settings import Limits, settings_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

HOUR, DAY = 3600.0, 86_400.0
NAMES = tuple(lane.name for lane in LANES)
BY_NAME = {lane.name: lane for lane in LANES}

#: Requests a minute for all lanes together, and the fraction of them that is used.
RPM, HEADROOM = 90, 0.98
LIMITED = Budget("key:large", "large", Limits(rpm=RPM), LANES, sharers=NAMES)
FREE = Budget("key:small", "small", Limits(), LANES, sharers=NAMES)

#: Seconds that a call takes, on average.
CALL_S = {"critical": 8.0, "normal": 15.0, "batch": 30.0}

#: From hour, jobs, model: what pipelines drop into batch at once.
DROPS = ((3.0, 6_000, LIMITED), (15.0, 3_000, FREE), (20.0, 1_500, LIMITED))

#: Hours in which the API answers with 429 and a ``retry-after``.
OUTAGE = (20.1, 20.6)

#: Pods: slots of one, most of a lane; seconds from wanted to ready, and for which fewer have to be wanted.
SLOTS, MOST, START_AFTER, CALM = 5, 60, 60.0, 300.0

#: Fraction of the limit that is used where it is what is short; seconds that this is looked at.
SHORT, SHORT_FOR = 0.95, 60.0

#: Fewest pods of a lane, as in deploy/kubernetes.
FEWEST = {"critical": 2, "normal": 1, "batch": 1}

#: Seconds between two scrapes, and the number of them for which slots have to be wanted.
SCRAPE_EVERY, LASTING = 30.0, 2


class Pipeline:
    """The commands of one look at the lanes, at the time that was set."""

    def __init__(self, clocked: ClockedRedis) -> None:
        """Queue nothing yet."""
        self._clocked, self._queued = clocked, list[tuple[str, tuple[Any, ...]]]()

    def __enter__(self) -> Self:
        """Do nothing."""
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Queue a command."""
        return lambda *args: self._queued.append((name, args))

    def execute(self) -> list[Any]:
        """Run what is queued."""
        queued, self._queued = self._queued, []
        return [self._run(name, args) for name, args in queued]

    def _run(self, name: str, args: tuple[Any, ...]) -> Any:
        if name == "time":
            return divmod(round((self._clocked.now + START_S) * 1_000_000), 1_000_000)
        where = self._clocked if name in {"execute_command", "script_load"} else self._clocked.client
        return getattr(where, name)(*args)


class Clocked(ClockedRedis):
    """The same for whoever asks several things at once."""

    def pipeline(self, transaction: bool = True) -> Pipeline:
        """Return a pipeline."""
        return Pipeline(self)


class Pods:
    """The pods of one lane, as Kubernetes keeps them."""

    def __init__(self, fewest: int) -> None:
        """Begin with the fewest."""
        self.ready = self.asked = self._fewest = fewest
        self._wanted: deque[tuple[float, int]] = deque()
        self._started: deque[tuple[float, int]] = deque([(-START_AFTER, fewest)])

    def want(self, now: float, pods: int) -> None:
        """Take what the autoscaler wants."""
        self.asked = _kept(self._wanted, now, min(MOST, max(self._fewest, pods)), CALM, max)
        self.ready = _kept(self._started, now, self.asked, START_AFTER, min)


def _kept(past: deque[tuple[float, int]], now: float, pods: int, seconds: float, best: Callable[..., int]) -> int:
    """Remember a number for so long; return the largest or the smallest that is remembered."""
    past.append((now, pods))
    while now - past[0][0] > seconds:
        past.popleft()
    return best(number for _, number in past)


class Day:
    """One day of one autoscaler."""

    def __init__(self, scheduler: Scheduler, app: Any, by: str, hours: float) -> None:
        """Prepare; `by`: ``slots`` wanted or the queue's ``depth``."""
        self.clock, self.scheduler, self.by, self.until = scheduler.client, scheduler, by, hours * HOUR
        self.collector = LanesCollector(app)
        self.random = random.Random(1)
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.order = itertools.count()
        self.clients = {name: scheduler.worker() for name in NAMES}
        self.pods, self.busy, self.looks = (
            {name: Pods(FEWEST[name]) for name in NAMES},
            dict.fromkeys(NAMES, 0),
            dict[str, float](),
        )
        self.tally, self.tallies = Tally(), itertools.count()
        self.sent: dict[str, tuple[float, Budget]] = {}
        self.begun: set[str] = set()
        self.waits: dict[str, list[float]] = defaultdict(list)
        self.wanted: dict[str, deque[float]] = {name: deque(maxlen=LASTING) for name in NAMES}
        self.rows: list[dict[str, Any]] = []
        self.limited: deque[float] = deque()
        self.free = dict.fromkeys(NAMES, 0)
        self.in_vain, self.only_limit = dict.fromkeys(NAMES, 0), 0

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Have something done."""
        heapq.heappush(self.events, (when, next(self.order), what))

    def run(self) -> None:
        """Live through the day."""
        for name in NAMES:
            self.scheduler.raw.zadd(f"lanes:workers:{name}", {"worker": 1e15})
        for name, least, most in (("critical", 0.02, 0.5), ("normal", 0.02, 0.2)):
            for when in self.arrivals(least, most):
                self.at(when, lambda name=name: self.submit(BY_NAME[name], LIMITED))  # type: ignore[misc]
        for hour, jobs, budget in DROPS:
            for _ in range(jobs):
                self.at(hour * HOUR, lambda budget=budget: self.submit(BY_NAME["batch"], budget))  # type: ignore[misc]
        self.at(SCRAPE_EVERY, self.scrape)
        while self.events and self.events[0][0] < self.until:
            self.clock.now, _, what = heapq.heappop(self.events)
            what()

    def arrivals(self, least: float, most: float) -> Iterator[float]:
        """Yield the times of a Poisson process that is busiest at 14 h (thinning; Lewis and Shedler, 1979)."""
        now = 0.0
        while (now := now + self.random.expovariate(most)) < self.until:
            rate = least + (most - least) * (1 + math.cos((now / HOUR - 14) * math.pi / 12)) / 2
            if self.random.random() < rate / most:
                yield now

    def submit(self, lane: Lane, budget: Budget) -> None:
        """Put a job into its lane."""
        self.sent[self.scheduler.put(budget, lane)] = (self.clock.now, budget)
        self.free[lane.name] += budget is FREE
        self.claim(lane.name)

    def claim(self, name: str) -> None:
        """Let a lane's free slots take what they may."""
        scripts, free = self.clients[name], self.pods[name].ready * SLOTS - self.busy[name]
        if free <= 0:
            return
        for held in self.scheduler.claim(free, scripts, queues=(name,)):
            self.begin(name, held)
        look = self.clock.now + max(0.01, scripts.look_ms / 1000)
        if scripts.look_ms >= 0 and look < self.looks.get(name, math.inf):
            self.looks[name] = look
            self.at(look, lambda: self.look_again(name, look))

    def look_again(self, name: str, look: float) -> None:
        """Do what a lane's workers were told to, unless they were told to come earlier."""
        if self.looks.get(name) == look:
            del self.looks[name]
            self.claim(name)

    def begin(self, name: str, held: Any) -> None:
        """Make a call."""
        sent, budget = self.sent[held.name]
        self.busy[name] += 1
        self.free[name] -= budget is FREE
        if budget is LIMITED:
            self.limited.append(self.clock.now)
        if held.name not in self.begun:
            self.begun.add(held.name)
            self.waits[name].append(self.clock.now - sent)
            self.tally.add(JobEvent(kind="called", lane=name, task="t", seconds=self.clock.now - sent))
        down = budget is LIMITED and OUTAGE[0] * HOUR < self.clock.now < OUTAGE[1] * HOUR
        took = 0.02 if down else self.random.gammavariate(4, CALL_S[name] / 4)
        self.at(self.clock.now + took, lambda: self.end(name, held, budget, took, down=down))

    def end(self, name: str, held: Any, budget: Budget, took: float, *, down: bool) -> None:
        """Settle a call, and its job."""
        outcome: Any = "limited" if down else "answered"
        left = {"retry-after": str(round(OUTAGE[1] * HOUR - self.clock.now) + 1)} if down else None
        self.scheduler.settle(budget, held, None if down else Usage(500, 200), outcome, left)
        self.tally.add(JobEvent(kind="settled", lane=name, task="t", seconds=took, outcome=outcome, status=429 * down))
        scripts = self.clients[name]
        scripts.requeue(held, delay_ms=100) if down else scripts.ack(held)
        self.busy[name] -= 1
        self.claim(name)

    def scrape(self) -> None:
        """Read the exporter, and have as many pods as it says."""
        record(self.clock, "", "worker", next(self.tallies), self.tally)  # type: ignore[arg-type]
        self.tally = Tally()
        figures = {family.name: family.samples for family in self.collector.collect()}
        of = {
            metric: {each.labels["lane"]: each.value for each in figures[metric]}
            for metric in ("lanes_jobs_queued", "lanes_jobs_in_flight", "lanes_slots_wanted")
        }
        for name in NAMES:
            self.wanted[name].append(of["lanes_slots_wanted"][name])
            slots = min(self.wanted[name]) + of["lanes_jobs_in_flight"][name]
            by_depth = of["lanes_jobs_queued"][name] + of["lanes_jobs_in_flight"][name]
            asked = self.pods[name].asked
            self.pods[name].want(self.clock.now, math.ceil((slots if self.by == "slots" else by_depth) / SLOTS))
            if self.is_limit_short() and not self.free[name]:
                self.only_limit += 1
                self.in_vain[name] += max(0, self.pods[name].asked - asked)
            self.claim(name)
        self.rows.append({"at": self.clock.now, **{name: self.pods[name].ready for name in NAMES}, "of": of})
        self.at(self.clock.now + SCRAPE_EVERY, self.scrape)

    def is_limit_short(self) -> bool:
        """Whether the API got as much as the limit lets through: then no pod makes it more."""
        while self.limited and self.clock.now - self.limited[0] > SHORT_FOR:
            self.limited.popleft()
        return len(self.limited) >= SHORT * HEADROOM * RPM * SHORT_FOR / 60


def most_pods(day: Day, name: str, first: float, last: float) -> int:
    """Return the most ready pods of a lane between two hours."""
    return max((row[name] for row in day.rows if first * HOUR <= row["at"] < last * HOUR), default=0)


def drained(day: Day, hour: float) -> float | None:
    """Return after how many minutes a drop of this hour was gone; None: it was not."""
    done = (
        row["at"] for row in day.rows if row["at"] > hour * HOUR + 60 and not row["of"]["lanes_jobs_queued"]["batch"]
    )
    first = next(done, None)
    return None if first is None else round((first - hour * HOUR) / 60, 1)


def figures_of(day: Day) -> dict[str, Any]:
    """Return what became of a day."""
    pod_hours = sum(sum(row[name] for name in NAMES) for row in day.rows) * SCRAPE_EVERY / HOUR
    busy = sum(sum(row["of"]["lanes_jobs_in_flight"].values()) for row in day.rows) * SCRAPE_EVERY / HOUR
    drops = {f"{hour:g} h": most_pods(day, "batch", hour, hour + 2) for hour, *_ in DROPS if hour * HOUR < day.until}
    before = next((row["batch"] for row in day.rows if row["at"] >= OUTAGE[0] * HOUR), 0)
    waits = {name: sorted(day.waits[name]) for name in NAMES if day.waits[name]}
    return {
        "pod_hours": round(pod_hours),
        "slots_busy": round(busy / (pod_hours * SLOTS), 2),
        "wait_p95_s": {name: round(those[int(len(those) * 0.95)], 2) for name, those in waits.items()},
        "most_batch_pods": drops,
        "drained_min": {f"{hour:g} h": drained(day, hour) for hour, *_ in DROPS if hour * HOUR < day.until},
        "looks_while_only_the_limit_was_short": day.only_limit,
        "pods_asked_for_then": day.in_vain,
        "started_while_shut": max(0, most_pods(day, "batch", *OUTAGE) - before),
    }


def measure(arguments: argparse.Namespace) -> Any:
    """Return the figures of both days."""
    found = {}
    for by in ("slots", "depth"):
        with bench_broker() as bench:
            clocked = Clocked(bench.client)
            broker = settings_of(bench.app).broker_url
            bench.app.lanes_redis = ((broker, repr(bench.app.conf.broker_transport_options)), clocked)
            day = Day(Scheduler(clocked), bench.app, by, arguments.hours)
            day.run()
            found[by] = figures_of(day)
    fed = RPM / 60 * HEADROOM * CALL_S["batch"]
    return {**found, "useful_batch_pods": math.ceil((fed + math.sqrt(fed)) / SLOTS)}


def say(figures: Any) -> str:
    """Return a line for each day."""
    lines = [f"the limit feeds {figures['useful_batch_pods']} pods of batch at most, of {SLOTS} slots each"]
    lines += [
        f"pods by {by}: " + ", ".join(f"{name} {value}" for name, value in figures[by].items())
        for by in ("slots", "depth")
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main(__doc__ or "", measure, say, hours=24.0)
