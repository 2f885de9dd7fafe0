"""Workers and jobs on the real scripts, and what each move may change."""

from __future__ import annotations

import dataclasses
import itertools
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from broker_kit.script_client import LANES as NAMES, Held, ScriptClient
from budget_kit.clock import START_S, ClockedRedis

from celery_app.broker.entry import Entry, cost_header
from celery_app.budget import Budget, Cost, budget_for
from celery_app.lanes import CRITICAL, LANES
from celery_app.routing import COST, DEADLINE_AT, MODEL, SUBMITTED_AT, TENANT, UNIQUE
from celery_app.scheduler.scripts import (
    CANCEL,
    DEAD_LETTER,
    DECIDE,
    DONE_ENDED,
    DROP_DEAD,
    PUBLISH,
    PUBLISH_MANY,
    REPLAY,
    REQUEUE,
    TAKE_ENDED,
)
from celery_app.settings import Limits, Settings
from scheduler_model.meter import Meter
from scheduler_model.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redis import Redis

#: ms after which a lease without a sign of life is over, and seconds that a decision is remembered.
LEASE_MS, KEPT_S = 15_000, 60

#: Requests per minute of the one budget: few enough that jobs wait for it.
RPM = 90

#: Rounds in which a worker has done all that a world can hold.
_MOST_ROUNDS = 200

#: Keys that outlive the jobs: they have a lifetime, or are one for all jobs.
_LEFT = {"published", "ended", "cancel", "bell", "batch", "budget", "terms", "time", "number", "turns", "clocks"} | {
    "counts", "dead_totals", "wakes", "workers", "credits"
}

#: What stands behind a task's id in the names of the records of its messages.
_RECORDS = ("", "~", "~~", "~~~")

_MOST_JOBS, _TENANTS, _MODELS = 12, ("", "ann", "bob"), ("m", "", "n", "m")

#: Nobody is owed a share here, and the floors stand.
_LANES = tuple(dataclasses.replace(lane, boost_after=None) for lane in LANES)


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


@dataclass(frozen=True)
class Submission:
    """What a publisher sent, and may send again."""

    lane: str
    token: str
    arguments: tuple[Any, ...]
    id: str


class World:
    """Each move does one thing, checks what may have changed by it, and what must hold of everything.

    Attributes:
        finished: exits -> jobs that took them: acked, told, dropped.
    """

    def __init__(self, redis: Redis, workers: int = 3) -> None:
        redis.flushdb()
        self.redis, self.client = redis, ClockedRedis(redis)
        self.budget: Budget = dataclasses.replace(
            budget_for(Settings(limits=Limits(rpm=RPM)), CRITICAL, "m"), lanes=_LANES
        )
        self._write_terms([(lane.name, "m") for lane in LANES])
        self.meter = Meter(RPM)
        self.workers = [Worker(ScriptClient(self.client)) for _ in range(workers)]
        self.sent: list[Submission] = []
        self.finished: Counter[str] = Counter()
        self.open: list[str] = []
        self.published: set[str] = set()
        self._numbers = itertools.count()
        self.seen = Snapshot.of(redis)

    # Publishers.

    def publish(self, lane: int, tenant: int, model: int, delay: int, left: int, unique: int) -> None:
        """A job comes in, unless the world is full of them."""
        if len(self.seen.jobs) >= _MOST_JOBS:
            return
        number = next(self._numbers)
        repeated = self._any(number) if unique % 6 == 2 else None  # as a task that replaces or repeats itself does  # noqa: PLR2004
        entry = self._entry(_task_id(repeated or f"job-{number}"), tenant, model, delay, left, unique)
        submission = Submission(NAMES[lane % len(NAMES)], f"token-{number}", tuple(entry.arguments()), entry.id)
        self.sent = [*self.sent[-7:], submission]
        self._send(submission)

    def publish_again(self, which: int) -> None:
        """A publisher heard no answer and repeats itself: a job that is there, or was, does not come again."""
        if self.sent:
            self._send(self.sent[which % len(self.sent)])

    def publish_many(self, lane: int, jobs: int, times: int) -> None:
        """A piece of a batch comes in, and perhaps again."""
        jobs = 1 + jobs % 3
        if len(self.seen.jobs) + jobs > _MOST_JOBS:
            return
        number = next(self._numbers)
        entries = [self._entry(f"batch{number}-{i}", i, 0, 0, 0, 0) for i in range(jobs)]
        parts = [part for entry in entries for part in entry.arguments()]
        arguments = ("", NAMES[lane % len(NAMES)], 1_000, f"lanes:batch:{number}", KEPT_S, 0, *parts)
        for again in range(1 + times % 2):
            PUBLISH_MANY.run(self.client, (), arguments)
            self._look(comes=None if again else f"batch{number}", many=jobs)

    def _entry(self, name: str, tenant: int, model: int, delay: int, left: int, unique: int) -> Entry:
        now = time.time()
        headers: dict[str, Any] = {
            "id": name,
            MODEL: (name_of_model := _MODELS[model % len(_MODELS)]),
            TENANT: _TENANTS[tenant % len(_TENANTS)],
            COST: cost_header(Cost(output_tokens=0)) if name_of_model else None,
            SUBMITTED_AT: now,
            DEADLINE_AT: now + 5 * (left % 4) if left % 4 else None,
        }
        if unique % 6 == 1:
            headers[UNIQUE] = "the only one"
        text = json.dumps({"headers": {"id": name}}).encode()
        return Entry(name, text, 0, headers, "", now + 2 * (delay % 4 - 1) if delay % 4 > 1 else 0.0)

    def _send(self, submission: Submission) -> None:
        fixed = ("", submission.lane, -1, submission.token, 300, "", 0, "", "")
        (word, *_) = PUBLISH.run(self.client, (), (*fixed, *submission.arguments))
        before = self.seen.jobs.keys()
        is_new = submission.token not in self.published
        self._look(comes=submission.id if is_new else None)
        assert word in {0, 2}, word
        if word == 0:
            self.published.add(submission.token)
            assert not is_new or len(self.seen.jobs) == len(before) + 1, "it says that the job is there"

    # Workers.

    def claim(self, which: int, most: int, lost: int, suspect: int) -> None:
        """A worker asks for jobs; it may never hear the answer."""
        worker = self._worker(which)
        options: dict[str, Any] = {"lanes": _LANES, "lease_ms": LEASE_MS, "has_suspect": suspect % 8 == 1}
        jobs = worker.scripts.claim(1 + most % 3, **options)
        for held in jobs:
            self._check_free(held, worker)
            if held.job.ticket:
                self.meter.grant(self.client.now)
                self.open.append(held.job.ticket)
        if lost % 4 != 1:
            worker.held += [(held, self.client.now) for held in jobs]
            self._write_terms(worker.scripts.unknown)
        self._look(may_expire=True, claimed={held.tag for held in jobs})

    def _write_terms(self, unknown: list[tuple[str, str]]) -> None:
        """Say which budget a model draws on, as a worker does that is asked to."""
        for lane, model in unknown:
            self.redis.hset("lanes:terms", f"{lane}:{model}", self.budget.terms)

    def _check_free(self, held: Held, by: Worker) -> None:
        """Nobody has it, as far as he could know: he said so within the time of a lease."""
        before = self.seen.jobs[held.tag]
        assert not before.claim or self._is_over(before.last_sign), f"{held.tag} was handed out while it was held"
        for other in self.workers:
            for theirs, said in other.held:
                if theirs.tag == held.tag and before.claim == theirs.token:
                    late = self.client.now - said
                    assert late >= LEASE_MS / 1000, f"{held.tag}: {by.scripts.process} got it after {late} s"

    def extend(self, which: int) -> None:
        """A worker gives a sign of life, and drops what it hears that it has lost."""
        worker = self._worker(which)
        newest = {held.tag: held for held, _ in worker.held}  # as `Leases`: of two claims of a job the later one
        lost = set(worker.scripts.extend(*newest.values(), lease_ms=LEASE_MS))
        for tag, held in newest.items():
            assert (tag in lost) == (not self._is_mine(held)), f"{tag}: whether it was lost"
        kept = {held.token: held for tag, held in newest.items() if tag not in lost}
        worker.held = [
            (held, self.client.now if kept.get(held.token) is held else said)
            for held, said in worker.held
            if newest[held.tag] is not held or held.tag not in lost
        ]
        self._look(may_expire=True)

    def ack(self, which: int, job: int, times: int) -> None:
        """A job is done; whoever has lost it changes nothing by saying so, and saying it again is nothing, too."""
        if (found := self._held(which, job, keep=False)) is None:
            return
        worker, held = found
        for _ in range(1 + times % 2):
            mine = self._is_mine(held)
            assert worker.scripts.ack(held) == int(mine)
            self._return_unsent(held, mine=mine)
            self._look(gone={held.tag: "acked"} if mine else {})

    def requeue(self, which: int, job: int, delay: int, went_wrong: int, times: int) -> None:
        """A job goes back, now or later."""
        if (found := self._held(which, job, keep=False)) is None:
            return
        worker, held = found
        for _ in range(1 + times % 2):
            mine = self._is_mine(held)
            done = worker.scripts.requeue(held, delay_ms=1_000 * (delay % 3), went_wrong=went_wrong % 3 == 1)
            assert done == int(mine)
            self._return_unsent(held, mine=mine)
            self._look(moved={held.tag} if mine else set())

    def dead_letter(self, which: int, job: int, told: int) -> None:
        """A job cannot be worked on."""
        if (found := self._held(which, job, keep=False)) is None:
            return
        worker, held = found
        mine = self._is_mine(held)
        arguments = ("", held.tag, held.token, "for a reason", -1, told % 2)
        assert _run(DEAD_LETTER, self.client, arguments) == int(mine)
        self._return_unsent(held, mine=mine)
        self._look(moved={held.tag} if mine else set())

    def _return_unsent(self, held: Held, *, mine: bool) -> None:
        """What an ended claim has reserved and not settled, nobody has used."""
        if mine and held.job.ticket in self.open:
            self.open.remove(held.job.ticket)
            self.meter.give_back(self.client.now)

    def decide(self, which: int, job: int) -> None:
        """A worker asks whether its job ends by itself."""
        if (found := self._held(which, job, keep=True)) is not None:
            _, held = found
            DECIDE.run(self.client, (), ("", _task_id(held.tag), "", KEPT_S, held.tag, held.token))
            self._look()

    def settle(self, which: int, outcome: int) -> None:
        """A call ends, in any way; one of a worker that has died may yet say so."""
        if self.open:
            ticket = self.open.pop(which % len(self.open))
            words = ("answered", "unsent", "failed", "limited", "overloaded")
            known = self.budget.settle(self.client, ticket, None, None, words[outcome % len(words)])  # type: ignore[arg-type]
            if known and words[outcome % len(words)] == "unsent":
                self.meter.give_back(self.client.now)
            self._look()

    def die(self, which: int) -> None:
        """A worker is killed: it knows nothing any more, and another one takes its place."""
        self.workers[which % len(self.workers)] = Worker(ScriptClient(self.client))

    # Those who wait, and who look after the dead.

    def cancel(self, which: int) -> None:
        """Somebody cancels a job, wherever it is."""
        if (tag := self._any(which)) is not None:
            records = {f"{_task_id(tag)}{end}" for end in _RECORDS} & self.seen.jobs.keys()
            waiting = {each for each in records if self.seen.jobs[each].places & {"line", "scheduled"}}
            cancelled = CANCEL.run(self.client, (), ("", _task_id(tag), 600))
            self._look(moved=waiting)
            for each in waiting if cancelled else ():
                assert self.seen.jobs[each].ending == "cancelled", f"{each} goes on"

    def take_ended(self, which: int, most: int) -> None:
        """A worker takes jobs that ended in Redis, to tell those who wait."""
        rows = TAKE_ENDED.run(self.client, (), ("", 1 + most % 2, 5_000))
        self._worker(which).taken += [row[0].decode() for row in rows]
        self._look()

    def done_ended(self, which: int, times: int) -> None:
        """It has told them; that may be the second time."""
        worker = self._worker(which)
        if not worker.taken:
            return
        tag = worker.taken.pop()
        for _ in range(1 + times % 2):
            placed = self.seen.jobs.get(tag)
            DONE_ENDED.run(self.client, (), ("", tag))
            goes = placed is not None and placed.places == {"ended"}
            self._look(gone={tag: "told"} if goes else {}, moved={tag})

    def replay(self, which: int, heard: int) -> None:
        """An operator takes a dead letter in hand, and puts it back, unless he is killed in between."""
        if (tag := self._any(which, "dead")) is None:
            return
        scripts = ScriptClient(self.client)
        token = f"{scripts.process}:0"
        fresh = "ended" not in self.seen.jobs[tag].places
        (word,) = REPLAY.run(self.client, (), ("", token, "none", 60, 60, 0, tag))
        assert word in ({b"done", b"named"} if fresh else {b"untold"}), (tag, word)
        self._look(moved={tag} if word == b"done" else set())
        if word == b"done" and heard % 4 != 1:
            assert _run(REQUEUE, self.client, ("", tag, token, 0, 0, 0, 0)) == 1
            self._look(moved={tag})

    def drop_dead(self, which: int) -> None:
        """An operator deletes a dead letter."""
        if (tag := self._any(which, "dead")) is not None:
            (word,) = DROP_DEAD.run(self.client, (), ("", tag))
            assert (word == b"untold") == ("ended" in self.seen.jobs[tag].places)
            self._look(gone={tag: "dropped"} if word == b"done" else {})

    def wait(self, ms: int) -> None:
        """Time passes; nothing happens."""
        self.client.now = round(self.client.now + ms / 1000, 6)

    def drain(self) -> None:
        """All workers die; one new one does all that is left. Nothing may remain, and all have ended in one way."""
        self.workers = [Worker(ScriptClient(self.client))]
        for _ in range(_MOST_ROUNDS):
            if not self.seen.jobs:
                break
            self.wait(2_500)
            self.extend(0)
            self.claim(0, 2, 0, 0)
            while self.workers[0].held:
                self.ack(0, 0, 0)
            while self.open:
                self.settle(0, 0)
            self.take_ended(0, 1)
            while self.workers[0].taken:
                self.done_ended(0, 0)
            self.drop_dead(0)
        assert not self.seen.jobs, f"nobody can get at {self.seen.jobs}"
        left = {key.decode().partition(":")[2].partition(":")[0] for key in self.redis.keys("lanes:*")}
        assert left <= _LEFT, f"left behind: {left - _LEFT}"

    # What may have changed.

    def _look(self, *, comes: str | None = None, many: int = 1, gone: Mapping[str, str] = _NONE, moved: Any = (), claimed: Any = (), may_expire: bool = False) -> None:
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


def _task_id(record: str) -> str:
    return record.partition("~")[0]


def _run(script: Any, client: Any, arguments: tuple[Any, ...]) -> int:
    return int(script.run(client, (), arguments))
