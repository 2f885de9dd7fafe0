"""Workers and jobs on the real scripts, and what one move may change of them."""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kit.clock import START_S, ClockedRedis
from kit.script_client import Held, ScriptClient
from redis import Redis

from celery_app.budget import Budget, budget_for
from celery_app.lanes import CRITICAL, LANES
from celery_app.settings import Limits, Settings
from scheduler_model.meter import Meter, Purse
from scheduler_model.snapshot import Snapshot

#: ms after which a lease without a sign of life is over, and seconds that a decision is remembered.
LEASE_MS, KEPT_S = 15_000, 60

#: Requests per minute of the one budget: few enough that jobs wait for it.
RPM = 240

#: Of the jobs' prompts: none, and two that the API keeps for a while.
BEGINNINGS = ("", "aa 300000 10 0", "bb 300000 10 0")

#: Worker processes at any time.
_WORKERS = 3

#: Jobs that a world has at most.
MOST_JOBS = 12

#: Nobody is owed a share here, and the floors stand.
LANES_ALONE = tuple(dataclasses.replace(lane, boost_after=None) for lane in LANES)

_NONE: Mapping[str, str] = {}


@dataclass
class Worker:
    """A worker process, as far as it knows itself.

    Attributes:
        held: what it believes that it holds, and when it last said so, in seconds.
        taken: ids of ended jobs that it is about to tell of.
    """

    scripts: ScriptClient
    held: list[tuple[Held, float]] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)


class Ground:
    """What is there, and what was there before the last move.

    Attributes:
        finished: exits -> jobs that took them: acked, told, dropped.
        open: tickets of calls that are not settled.
        seen: where all jobs were after the last move.
    """

    def __init__(self, redis: Redis) -> None:
        redis.flushdb()
        self.redis, self.client = redis, ClockedRedis(redis)
        self.budget: Budget = dataclasses.replace(
            budget_for(Settings(limits=Limits(rpm=RPM)), CRITICAL, "m"), lanes=LANES_ALONE
        )
        self._write_terms([(lane.name, "m") for lane in LANES])
        self.meter, self.purse = Meter(RPM), Purse()
        self.workers = [Worker(ScriptClient(self.client)) for _ in range(_WORKERS)]
        self.finished: Counter[str] = Counter()
        self.open: list[str] = []
        self.seen = Snapshot.of(redis)

    def wait(self, ms: int) -> None:
        """Time passes; nothing happens."""
        self.client.now = round(self.client.now + ms / 1000, 6)

    def _look(
        self,
        *,
        comes: str | None = None,
        many: int = 1,
        gone: Mapping[str, str] = _NONE,
        moved: Any = (),
        claimed: Any = (),
        may_expire: bool = False,
    ) -> None:
        """Compare where all jobs are with where they were.

        Args:
            comes: begin of the ids of jobs that are new; None: there are none.
            many: how many these are at most.
            gone: id -> the exit by which it must be gone now.
            moved: ids that may have left the hands of a worker, or their place.
            claimed: ids that were handed out, and so are held under another claim.
            may_expire: whether leases that are over, and deadlines, may be seen to.
        """
        before, now = self.seen, Snapshot.of(self.redis)
        now.check()
        self.seen = now
        vanished, new = before.jobs.keys() - now.jobs.keys(), now.jobs.keys() - before.jobs.keys()
        assert vanished == set(gone), f"lost: {vanished - set(gone)}; still there: {set(gone) - vanished}"
        assert all(comes is not None and tag.startswith(comes) for tag in new), f"doubled: {new}"
        assert len(new) <= many, f"doubled: {new}"
        self.finished.update(gone.values())
        for tag in before.jobs.keys() & now.jobs.keys() - set(moved) - set(claimed):
            self._check_stayed(tag, before, now, may_expire=may_expire)

    def _check_stayed(self, tag: str, before: Snapshot, now: Snapshot, *, may_expire: bool) -> None:
        was, is_ = before.jobs[tag], now.jobs[tag]
        if was.claim and was.claim != is_.claim:
            assert may_expire, f"{tag} was taken out of a worker's hands"
            assert self._is_over(was.last_sign), f"{tag}: its lease was not over"
        if "dead" in was.places:
            assert "dead" in is_.places, f"{tag} is no dead letter any more"
        if was.places == {"ended"}:
            assert is_.places == {"ended"}, f"{tag} had ended, and goes on"
        if "line" in was.places and "line" not in is_.places:
            assert may_expire, f"{tag} left its line"
            assert is_.places == {"ended"}, f"{tag} left its line for {is_.places}"

    def _is_over(self, last_sign: int) -> bool:
        return self._ms() - last_sign >= LEASE_MS

    def _ms(self) -> int:
        return int((START_S + self.client.now) * 1000)

    def _worker(self, which: int) -> Worker:
        return self.workers[which % len(self.workers)]

    def _held(self, which: int, job: int, *, keep: bool) -> tuple[Worker, Held] | None:
        worker = self._worker(which)
        if not worker.held:
            return None
        at = job % len(worker.held)
        return worker, (worker.held[at] if keep else worker.held.pop(at))[0]

    def _is_mine(self, held: Held) -> bool:
        placed = self.seen.jobs.get(held.tag)
        return placed is not None and placed.claim == held.token

    def _any(self, which: int, place: str = "") -> str | None:
        tags = [tag for tag, placed in self.seen.jobs.items() if not place or place in placed.places]
        return sorted(tags)[which % len(tags)] if tags else None

    def _write_terms(self, unknown: list[tuple[str, str]]) -> None:
        """Say which budget a model draws on, as a worker does that is asked to."""
        for lane, model in unknown:
            self.redis.hset("lanes:terms", f"{lane}:{model}", self.budget.terms)


def task_id_of(record: str) -> str:
    """Return the id of the task whose message a record is of."""
    return record.partition("~")[0]
