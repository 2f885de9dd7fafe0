"""A fleet of workers and an API, simulated around the real scripts: what each would do, at the time it would.

Only time is not real. Events are taken from a heap in the order of their times, and every publication, claim and
settlement is the real script on a real server.
"""

import heapq
import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count

from celery_app.budget import Budget, Cost, Usage
from celery_app.lanes import LANES, Lane
from demo.simulator.limits import Account, ApiLimits, ratelimit_headers
from kit.clock import ClockedRedis
from kit.scheduler import Scheduler
from kit.script_client import Held

# Seconds: on the way to the API; and until a refusal, which costs it nothing, is back.
TRIP_S = 0.005
REFUSAL_S = 0.02

# Seconds for which a worker with a free slot sleeps at most.
SLEEP_S = 0.25

# Jobs that an endless backlog has ready; one that leaves is replaced at once.
READY = 3


@dataclass(slots=True)
class Job:
    """A call that waits in its lane or is under way."""

    lane: Lane
    born: float
    usage: Usage
    then: Callable[[], None]


class Slot:
    """A worker with one slot."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scripts = scheduler.worker()
        self.looks = 0  # the look that counts; earlier ones have been overtaken by a wakeup


@dataclass(frozen=True, slots=True)
class Sent:
    """A call that reached the API."""

    at: float
    lane: str
    waited: float
    status: int
    usage: Usage


@dataclass
class Fleet:
    """Slots that make calls, and the API that answers them.

    Attributes:
        redis: with a clock to set.
        budget: that the calls draw on.
        limits: of the API; change them with `change`.
        headers: whether the API tells its limits.
        latency: seconds of a call, drawn uniformly from half of it to one and a half.
        down: whether the API answers 529.
    """

    redis: ClockedRedis
    budget: Budget
    limits: ApiLimits
    headers: bool = False
    latency: float = 0.3
    down: bool = False
    sent: list[Sent] = field(default_factory=list)
    asked: int = 0
    seed: int = 1

    def __post_init__(self) -> None:
        """Start at second 0 with nothing to do."""
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._random = random.Random(self.seed)
        self._account = Account(self.limits, 0)
        self._scheduler = Scheduler(self.redis)
        self._jobs: dict[str, Job] = {}
        self._idle: dict[str, deque[Slot]] = {}
        self.until = 0.0

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Do something at a second."""
        heapq.heappush(self._events, (when, next(self._numbers), action))

    def run(self, seconds: float) -> None:
        """Let some time pass."""
        self.until += seconds
        while self._events and self._events[0][0] <= self.until:
            when, _, action = heapq.heappop(self._events)
            self.redis.now = when
            action()
        self.redis.now = self.until

    def change(self, limits: ApiLimits) -> None:
        """Have the API enforce other limits from now on."""
        self._account.reshape(limits, self.until)

    def keep_busy(self, lane: Lane, slots: int, job: Callable[[], tuple[Cost, Usage]]) -> None:
        """Give a lane an endless backlog, older than any boost, and slots that work on it."""
        for _ in range(READY):
            self.at(self.until, lambda: self._refill(lane, job))
        self._hire(lane, slots)

    def arrive(self, lane: Lane, per_second: float, seconds: float, job: Callable[[], tuple[Cost, Usage]]) -> None:
        """Have jobs arrive at random, with slots enough for all of them."""
        if lane.name not in self._idle:
            self._hire(lane, max(1, round(10 * per_second * self.latency)))
        when = self.until + self._random.expovariate(per_second)
        while when < self.until + seconds:
            self.at(when, lambda: self._put(lane, 0.0, job(), lambda: None))
            when += self._random.expovariate(per_second)

    def _hire(self, lane: Lane, slots: int) -> None:
        self._idle.setdefault(lane.name, deque())
        for _ in range(slots):
            self.at(self.until, lambda: self._look(lane, Slot(self._scheduler)))

    def _refill(self, lane: Lane, job: Callable[[], tuple[Cost, Usage]]) -> None:
        self._put(lane, 1_000.0, job(), lambda: self._refill(lane, job))

    def _put(self, lane: Lane, age: float, job: tuple[Cost, Usage], then: Callable[[], None]) -> None:
        cost, usage = job
        name = self._scheduler.put(self.budget, lane, f"job-{next(self._numbers)}", cost, age=age)
        self._jobs[name] = Job(lane, self.redis.now - age, usage, then)
        self._answer_wakeups()

    def _look(self, lane: Lane, slot: Slot) -> None:
        """Claim a job for a free slot, or wait for a wakeup, or for as long as the scheduler says."""
        self.asked += 1
        slot.looks += 1
        held = self._scheduler.claim(scripts=slot.scripts, queues=(lane.name,), sleep_ms=round(SLEEP_S * 1000))
        if held:
            self._begin(lane, slot, held[0])
            return
        told = slot.scripts.look_ms / 1000
        look = slot.looks
        self._idle[lane.name].append(slot)
        self.at(
            self.redis.now + (min(told, SLEEP_S) if told >= 0 else SLEEP_S),
            lambda: self._wake(lane, slot) if slot.looks == look else None,
        )

    def _wake(self, lane: Lane, slot: Slot) -> None:
        self._idle[lane.name].remove(slot)
        self._look(lane, slot)

    def _answer_wakeups(self) -> None:
        """Have an idle slot look where a wakeup was sent to a lane."""
        for lane in LANES:
            if self._idle.get(lane.name) and self.redis.client.delete(f"lanes:bell:{lane.name}"):
                self.at(self.redis.now, lambda lane=lane: self._answer(lane))  # type: ignore[misc]

    def _answer(self, lane: Lane) -> None:
        if self._idle[lane.name]:
            self._wake(lane, self._idle[lane.name][0])

    def _begin(self, lane: Lane, slot: Slot, held: Held) -> None:
        self._jobs[held.name].then()
        self._answer_wakeups()
        self.at(self.redis.now + TRIP_S, lambda: self._call(lane, slot, held))

    def _call(self, lane: Lane, slot: Slot, held: Held) -> None:
        job, now = self._jobs[held.name], self.redis.now
        denial = self._account.admit(job.usage.input_tokens, now)
        status = 529 if self.down else 429 if denial else 200
        self.sent.append(Sent(now, job.lane.name, now - job.born, status, job.usage))
        if status != 200:
            self.at(now + REFUSAL_S, lambda: self._refused(lane, slot, held, status))
            return
        took = self._random.uniform(0.5, 1.5) * self.latency
        self.at(now + took, lambda: self._answered(lane, slot, held))

    def _answered(self, lane: Lane, slot: Slot, held: Held) -> None:
        usage = self._jobs.pop(held.name).usage
        self._account.produce(usage.output_tokens, self.redis.now)
        self._scheduler.settle(self.budget, held, usage, "answered", self._told())
        slot.scripts.ack(held)
        self._answer_wakeups()
        self._look(lane, slot)

    def _refused(self, lane: Lane, slot: Slot, held: Held, status: int) -> None:
        self._jobs[held.name].then = lambda: None  # it has been replaced in its lane
        self._scheduler.settle(self.budget, held, None, "overloaded" if status == 529 else "limited", self._told())
        slot.scripts.requeue(held)
        self._answer_wakeups()
        self._look(lane, slot)

    def _told(self) -> Mapping[str, str]:
        now = self.redis.now
        return ratelimit_headers(self._account, now, now) if self.headers else {}

    def used(self, start: float, end: float, rate: float) -> float:
        """Give the fraction of a rate of requests that the API took in some seconds."""
        taken = sum(1 for sent in self.sent if start <= sent.at < end and sent.status == 200)
        return taken / (rate * (end - start))

    def refused(self, start: float, end: float) -> float:
        """Give the fraction of calls in some seconds that the API refused."""
        statuses = [sent.status for sent in self.sent if start <= sent.at < end]
        return sum(status != 200 for status in statuses) / max(1, len(statuses))
