"""A fleet of workers and an API, simulated around the real scripts: what each would do, at the time it would.

Only time is not real. Events are taken from a heap in the order of their times, and every admission and settlement is
the real script on a real server.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

from demo.simulator.accounts import Account
from demo.simulator.headers import ratelimit_headers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from budget_kit.clock import ClockedRedis
    from celery_app.budget import Budget, Cost, Usage
    from celery_app.lanes import Lane
    from demo.simulator.limits import Limits

# Seconds: on the way to the API; and until a refusal, which costs it nothing, is back.
TRIP_S = 0.005
REFUSAL_S = 0.02

# Seconds after which a worker asks again, at the latest, if the wait is no more than a guess.
GUESS_S = 1.0


@dataclass(slots=True)
class Job:
    """A call that some slot wants to make."""

    name: str
    lane: Lane
    born: float
    cost: Cost
    usage: Usage


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
    limits: Limits
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

    def change(self, limits: Limits) -> None:
        """Have the API enforce other limits from now on."""
        self._account.reshape(limits, self.until)

    def keep_busy(self, lane: Lane, slots: int, job: Callable[[], tuple[Cost, Usage]]) -> None:
        """Give a lane an endless backlog, older than any boost, and slots that work on it."""
        for _ in range(slots):
            self.at(self.until, lambda: self._next(lane, job))

    def arrive(self, lane: Lane, per_second: float, seconds: float, job: Callable[[], tuple[Cost, Usage]]) -> None:
        """Have jobs arrive at random, each with a slot of its own."""
        when = self.until + self._random.expovariate(per_second)
        while when < self.until + seconds:
            self.at(when, lambda when=when: self._ask(Job(self._name(), lane, when, *job())))  # type: ignore[misc]
            when += self._random.expovariate(per_second)

    def _name(self) -> str:
        return f"job-{next(self._numbers)}"

    def _next(self, lane: Lane, job: Callable[[], tuple[Cost, Usage]]) -> None:
        born = self.redis.now - 1_000
        self._ask(Job(self._name(), lane, born, *job()), lambda: self._next(lane, job))

    def _ask(self, job: Job, then: Callable[[], None] = lambda: None) -> None:
        self.asked += 1
        now = self.redis.now
        admission = self.budget.admit(self._client, job.lane, job.cost, now - job.born, job.name)
        if admission.granted:
            self.at(now + TRIP_S, lambda: self._call(job, admission.ticket, then))
        else:
            wait = admission.wait_s if admission.certain else min(admission.wait_s, GUESS_S)
            self.at(now + wait, lambda: self._ask(job, then))

    def _call(self, job: Job, ticket: str, then: Callable[[], None]) -> None:
        now = self.redis.now
        denial = self._account.admit(job.usage.input_tokens, now)
        status = 529 if self.down else 429 if denial else 200
        self.sent.append(Sent(now, job.lane.name, now - job.born, status, job.usage))
        if status != 200:
            self.at(now + REFUSAL_S, lambda: self._refused(job, ticket, status, then))
            return
        took = self._random.uniform(0.5, 1.5) * self.latency
        self.at(now + took, lambda: self._answered(job, ticket, then))

    def _answered(self, job: Job, ticket: str, then: Callable[[], None]) -> None:
        self._account.produce(job.usage.output_tokens, self.redis.now)
        self.budget.settle(self._client, ticket, job.usage, self._told(), "answered")
        then()

    def _refused(self, job: Job, ticket: str, status: int, then: Callable[[], None]) -> None:
        outcome = "overloaded" if status == 529 else "limited"
        self.budget.settle(self._client, ticket, None, self._told(), outcome)  # type: ignore[arg-type]
        self._ask(job, then)

    def _told(self) -> Mapping[str, str]:
        now = self.redis.now
        return dict(ratelimit_headers(self._account, now, now)) if self.headers else {}

    @property
    def _client(self) -> Any:
        return self.redis

    def used(self, start: float, end: float, rate: float) -> float:
        """Give the fraction of a rate of requests that the API took in some seconds."""
        taken = sum(1 for sent in self.sent if start <= sent.at < end and sent.status == 200)
        return taken / (rate * (end - start))

    def refused(self, start: float, end: float) -> float:
        """Give the fraction of calls in some seconds that the API refused."""
        statuses = [sent.status for sent in self.sent if start <= sent.at < end]
        return sum(status != 200 for status in statuses) / max(1, len(statuses))
