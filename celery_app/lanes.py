"""What a lane is, and the three there are."""

from __future__ import annotations

from dataclasses import dataclass

#: Seconds that a publisher waits for room in a full lane. It may be a web thread, and a person waits for it; or beat,
#: whose other entries are late by as much. Who has the time says so: ``submit_many(…, wait=600)``.
CRITICAL_SUBMIT_WAIT, NORMAL_SUBMIT_WAIT, BATCH_SUBMIT_WAIT = 1, 2, 2

#: Redis pops step 0 first. One step apart each, so that a stock Celery worker, too, keeps the lanes in order.
CRITICAL_PRIORITY, NORMAL_PRIORITY, BATCH_PRIORITY = 0, 3, 6


@dataclass(frozen=True, slots=True)
class Lane:
    """A Celery queue, its broker priority, and the rules for the jobs in it.

    Attributes:
        name: the queue's name, its exchange and its routing key.
        priority: broker priority of a job that names none; 0 goes first on Redis.
        capacity: jobs that may be queued before publishers have to wait.
        submit_wait: seconds a publisher waits for room before `LaneFull`, unless it says ``wait=``.
        deadline: seconds from submission after which a job is pointless; None: never.
        call_timeout: seconds that one API call may take, from connecting to the last byte.
        floor: fraction of a budget's burst that this lane leaves for the lanes above it.
        share: fraction of slots and budget guaranteed once the lane's head has waited `boost_after`.
        boost_after: seconds; None: the lane needs no guarantee.
        attempts: failed calls before a job fails for good; waiting for the budget is no attempt.
        prompt_caches: whether jobs wait for the first one whose prompt begins as theirs, so that the API reads that
            from its cache; off: nothing is gained where no prompt is marked for it.
        usd_per_day: dollars that its calls may cost in a day; None: whatever they cost.
    """

    name: str
    priority: int
    capacity: int
    submit_wait: float
    deadline: float | None
    call_timeout: float
    floor: float
    share: float
    boost_after: float | None
    attempts: int
    prompt_caches: bool = False
    usd_per_day: float | None = None

    @property
    def arguments(self) -> tuple[str, float, float, int]:
        """Its rules for the scheduler: name, floor, share, ms until its head is boosted (-1: never)."""
        boost_ms = -1 if self.boost_after is None else round(self.boost_after * 1000)
        return self.name, self.floor, self.share, boost_ms


#: A person waits: a short queue, because an answer after 30 s is read by nobody.
CRITICAL = Lane(
    name="critical",
    priority=CRITICAL_PRIORITY,
    capacity=1_000,
    submit_wait=CRITICAL_SUBMIT_WAIT,
    deadline=30,
    call_timeout=30,
    floor=0.0,
    share=0.0,
    boost_after=None,
    attempts=3,
)

#: Seconds are fine: a web hook, a summary that is shown when it is there.
NORMAL = Lane(
    name="normal",
    priority=NORMAL_PRIORITY,
    capacity=10_000,
    submit_wait=NORMAL_SUBMIT_WAIT,
    deadline=300,
    call_timeout=120,
    floor=0.25,
    share=0.10,
    boost_after=10,
    attempts=5,
)

#: Minutes are fine: no deadline, because a backlog is no failure.
BATCH = Lane(
    name="batch",
    priority=BATCH_PRIORITY,
    capacity=100_000,
    submit_wait=BATCH_SUBMIT_WAIT,
    deadline=None,
    call_timeout=300,
    floor=0.5,
    share=0.05,
    boost_after=30,
    attempts=8,
)

#: Most important first: this is the order in which workers claim.
LANES = (CRITICAL, NORMAL, BATCH)
