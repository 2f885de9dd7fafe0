"""The scheduler's scripts run by hand, as a worker's channel runs them."""

import itertools
import json
from dataclasses import dataclass
from typing import Any

from redis import Redis

from celery_app import LANES as ALL_LANES
from celery_app.broker.claim_request import claim_arguments
from celery_app.broker.claimed import ClaimedJob
from celery_app.broker.lane_stats import PRIORITY_STEPS as STEPS, SEPARATOR, lane_stats
from celery_app.broker.lease import Leases
from celery_app.scheduler.scripts import CLAIM

LANES = tuple(lane.name for lane in ALL_LANES)

#: Deaths of its process that are laid on a job, after which it is dead-lettered; scripts/lib/leases.lua.
MAX_DEATHS = 5


@dataclass(frozen=True, slots=True)
class Held:
    """A claimed job."""

    job: ClaimedJob
    token: str

    @property
    def queue(self) -> str:
        """The queue that it was claimed from."""
        return self.job.queue

    @property
    def tag(self) -> str:
        """The id of its record."""
        return self.job.id

    @property
    def text(self) -> bytes:
        """Its message."""
        return self.job.text or b""

    @property
    def cancelled(self) -> bool:
        """Whether it was cancelled while it was queued."""
        return self.job.cancelled

    @property
    def message(self) -> Any:
        """The job, decoded."""
        return json.loads(self.text)

    @property
    def name(self) -> str:
        """The test's name for the job: its task id."""
        return str(self.message["headers"]["id"])


class ScriptClient:
    """What one worker says to the scheduler: it claims, acks, requeues. Each is a process of its own."""

    _numbers = itertools.count()

    def __init__(self, client: Redis, prefix: str = "") -> None:
        self.client = client
        self.prefix = prefix
        self.leases = Leases(client, prefix, repeats=False)
        self.leases.process = f"process{next(self._numbers)}"
        self.look_ms = -1
        self.has_arrivals = False
        self.unknown: list[tuple[str, str]] = []

    def claim(
        self,
        most: int = 1,
        queues: tuple[str, ...] = LANES,
        lease_ms: int = 15_000,
        *,
        lanes: Any = ALL_LANES,
        sleep_ms: int = 250,
        has_suspect: bool = False,
    ) -> list[Held]:
        """Claim jobs."""
        token = f"{self.leases.process}:{next(self._numbers)}"
        times = {"reap_after": lease_ms / 1000, "sleep": sleep_ms / 1000}
        arguments = claim_arguments(
            self.prefix, token, most, lanes, queues, lists=(SEPARATOR, STEPS), has_suspect=has_suspect, **times
        )
        reply = CLAIM.run(self.client, (), arguments)
        self.look_ms, self.has_arrivals = int(reply[0]), bool(reply[1])
        names = [name.decode() for name in reply[2]]
        self.unknown = list(zip(names[::2], names[1::2], strict=True))
        return [Held(ClaimedJob.of(row), token) for row in reply[3]]

    def names(self, most: int = 1_000, **options: Any) -> list[str]:
        """Claim jobs and return their names."""
        return [held.name for held in self.claim(most, **options)]

    def ack(self, held: Held) -> int:
        """A job is done."""
        return self.leases.ack(held.tag, held.token)

    def requeue(self, held: Held, *, delay_ms: int = 0, retries: int = -1, went_wrong: bool = False) -> int:
        """Return a job."""
        return self.leases.requeue(held.tag, held.token, delay=delay_ms / 1000, retries=retries, went_wrong=went_wrong)

    def dead_letter(self, held: Held, reason: str) -> int:
        """Dead-letter a job, of whose end has been told."""
        return self.leases.dead_letter(held.tag, held.token, reason, told=True)

    def extend(self, *jobs: Held, lease_ms: int = 15_000) -> list[str]:
        """Give a sign of life and return the ids that are lost."""
        return self.leases.extend({held.tag: held.token for held in jobs}, lease_ms / 1000)

    def dead(self) -> list[str]:
        """Return the ids of the dead letters, the oldest first."""
        found: Any = self.client.zrange(f"{self.prefix}lanes:dead", 0, -1)
        return [tag.decode() for tag in found]

    def places(self, lane: str) -> int:
        """Return how many jobs are queued in a lane."""
        return lane_stats(self.client, [each for each in ALL_LANES if each.name == lane], self.prefix)[lane].depth
