"""What jobs did, in the order in which they did it: one Redis list that they append to and the tests read."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from redis import Redis

from kit.waiting import wait_until

LOG_KEY = "event_log"

#: Set of the jobs that have ended: counting them must not cost reading the event log.
ENDED_KEY = "done"


@dataclass(frozen=True, slots=True)
class Event:
    """One line.

    Attributes:
        event: ``start``, ``end``, ``ready``.
        job: the test's own number for the job.
        at: seconds since the epoch by this machine's clock.
        worker: its node name.
    """

    event: str
    job: str
    at: float
    worker: str


class EventLog:
    """The list, for writing in workers and for reading in tests."""

    def __init__(self, url: str) -> None:
        """Connect with the first command."""
        self.client = Redis.from_url(url)

    def write(self, event: str, job: object, worker: str) -> None:
        """Append a line."""
        self.client.rpush(LOG_KEY, f"{event}|{job}|{time.time()}|{worker}")

    def write_end(self, job: object, worker: str) -> None:
        """Append that a job has ended, and count it."""
        with self.client.pipeline(transaction=False) as pipeline:
            pipeline.rpush(LOG_KEY, f"end|{job}|{time.time()}|{worker}")
            pipeline.sadd(ENDED_KEY, str(job))
            pipeline.execute()

    def done(self) -> int:
        """Return how many jobs have ended at least once."""
        return int(self.client.scard(ENDED_KEY))

    def read(self, event: str | None = None) -> list[Event]:
        """Return all lines, or those of one event."""
        lines = (line.decode().split("|") for line in self.client.lrange(LOG_KEY, 0, -1))
        return [Event(name, job, float(at), worker) for name, job, at, worker in lines if event in (None, name)]

    def jobs(self, event: str) -> list[str]:
        """Return the jobs of an event, in order."""
        return [entry.job for entry in self.read(event)]

    def counts(self, event: str) -> Counter[str]:
        """Return how often each job had an event."""
        return Counter(self.jobs(event))

    def by_job(self, event: str) -> dict[str, list[Event]]:
        """Return each job's lines of an event."""
        lines: dict[str, list[Event]] = defaultdict(list)
        for entry in self.read(event):
            lines[entry.job].append(entry)
        return lines

    def wait_for(self, event: str, jobs: Iterable[object], seconds: float) -> list[Event]:
        """Return the lines of an event once it has happened to all of `jobs`."""
        wanted = {str(job) for job in jobs}
        wait_until(lambda: wanted <= set(self.jobs(event)), f"{event} of {sorted(wanted)[:5]}…", seconds)
        return self.read(event)

    def open_gate(self, gate: str) -> None:
        """Let the jobs go on that wait at a gate."""
        self.client.set(f"gate:{gate}", 1)

    def wait_at_gate(self, gate: str, seconds: float) -> None:
        """Wait until a gate is open; for jobs that must be under way until the test says so."""
        wait_until(lambda: self.client.exists(f"gate:{gate}"), f"gate {gate} opens", seconds)
