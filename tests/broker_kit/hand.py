"""The broker's scripts run by hand, as a worker's channel runs them."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from celery_app.broker.verbs import CLAIM, EXTEND, GIVE_BACK, GIVE_UP, SETTLE

if TYPE_CHECKING:
    from redis import Redis

SEPARATOR = "\x06\x16"
STEPS = "0,3,6,9"
LANES = ("critical", "normal", "batch")
MAX_DELIVERIES = 5
MAX_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Held:
    """A claimed job."""

    queue: str
    tag: str
    text: bytes
    token: str
    cancelled: bytes

    @property
    def message(self) -> Any:
        """The job, decoded."""
        return json.loads(self.text)

    @property
    def name(self) -> str:
        """The test's name for the job: its task id."""
        return str(self.message["headers"]["id"])


class Hand:
    """One worker's hand: claims, settles, returns."""

    _numbers = itertools.count()

    def __init__(self, client: Redis, prefix: str = "", *, max_bytes: int = MAX_BYTES) -> None:
        """Hold nothing."""
        self.client = client
        self.prefix = prefix
        self.max_bytes = max_bytes
        self.next_due_ms = -1

    def claim(self, most: int = 1, queues: tuple[str, ...] = LANES, lease_ms: int = 15_000) -> list[Held]:
        """Claim jobs."""
        token = f"hand:{next(self._numbers)}"
        flags = [part for queue in queues for part in (queue, "1")]
        arguments = (self.prefix, SEPARATOR, token, most, lease_ms, MAX_DELIVERIES, self.max_bytes, STEPS, *flags)
        reply = CLAIM.run(self.client, (), arguments)
        self.next_due_ms = int(reply[0])
        parts = iter(reply[1:])
        jobs = zip(parts, parts, parts, parts, strict=True)
        return [Held(queue.decode(), tag.decode(), text, token, cancelled) for queue, tag, cancelled, text in jobs]

    def names(self, most: int = 1_000, **options: Any) -> list[str]:
        """Claim jobs and return their names."""
        return [held.name for held in self.claim(most, **options)]

    def settle(self, held: Held) -> int:
        """A job is done."""
        return int(SETTLE.run(self.client, (), (self.prefix, held.tag, held.token)))

    def give_back(self, held: Held, *, delay_ms: int = 0, retries: int = -1, most_deliveries: int = 0) -> int:
        """Return a job."""
        arguments = (self.prefix, SEPARATOR, held.tag, held.token, delay_ms, retries, most_deliveries, 0)
        return int(GIVE_BACK.run(self.client, (), arguments))

    def give_up(self, held: Held, reason: str) -> int:
        """Bury a job."""
        return int(GIVE_UP.run(self.client, (), (self.prefix, SEPARATOR, held.tag, held.token, reason)))

    def extend(self, *jobs: Held, lease_ms: int = 15_000) -> list[str]:
        """Give a sign of life and return the tags that are lost."""
        pairs = [part for held in jobs for part in (held.tag, held.token)]
        arguments = (self.prefix, SEPARATOR, lease_ms, MAX_DELIVERIES, *pairs)
        return [tag.decode() for tag in EXTEND.run(self.client, (), arguments)]

    def dead(self) -> dict[str, str]:
        """Return the dead letters' ids and reasons."""
        reasons = self.client.hgetall(f"{self.prefix}lanes:dead_reasons")
        return {tag.decode(): reason.decode() for tag, reason in reasons.items()}

    def places(self, lane: str) -> int:
        """Return how many jobs are queued in a lane."""
        steps = ("", *(f"{SEPARATOR}{step}" for step in (3, 6, 9)))
        return sum(self.client.llen(f"{self.prefix}{lane}{step}") for step in steps)
