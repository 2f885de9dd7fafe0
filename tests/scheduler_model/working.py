"""What workers do: they claim, give signs of life, end jobs in each way, and die."""

from typing import Any

from kit.script_client import Held, ScriptClient

from celery_app.budget import CallOutcome, Usage
from celery_app.budget.call_end import CallEnd
from celery_app.scheduler.scripts import DEAD_LETTER, DECIDE, DONE_ENDED, TAKE_ENDED
from scheduler_model.ground import BEGINNINGS, KEPT_S, LANES_ALONE, LEASE_MS, Ground, Worker, task_id_of

_OUTCOMES: tuple[CallOutcome, ...] = ("answered", "answered", "unsent", "failed", "limited", "overloaded")


class Working(Ground):
    """Whoever has lost a job changes nothing by what he says of it."""

    def claim(self, which: int, most: int, lost: int, suspect: int) -> None:
        """A worker asks for jobs; it may never hear the answer."""
        worker = self._worker(which)
        options: dict[str, Any] = {"lanes": LANES_ALONE, "lease_ms": LEASE_MS, "has_suspect": suspect % 8 == 1}
        jobs = worker.scripts.claim(1 + most % 3, **options)
        for held in jobs:
            self._check_free(held, worker)
            if held.job.ticket:
                self.meter.grant(self.client.now)
                self.purse.grant(self.seen.jobs[held.tag], held.job.ticket)
                self.open.append(held.job.ticket)
        if lost % 4 != 1:
            worker.held += [(held, self.client.now) for held in jobs]
            self._write_terms(worker.scripts.unknown)
        self._look(may_expire=True, claimed={held.tag for held in jobs})

    def _check_free(self, held: Held, by: Worker) -> None:
        """Nobody has it, as far as he could know: he said so within the time of a lease."""
        before = self.seen.jobs[held.tag]
        assert not before.claim or self._is_over(before.last_sign), f"{held.tag} was handed out while it was held"
        for other in self.workers:
            for theirs, said in other.held:
                if theirs.tag == held.tag and before.claim == theirs.token:
                    late = self.client.now - said
                    assert late >= LEASE_MS / 1000, f"{held.tag}: {by.scripts.leases.process} got it after {late} s"

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
        _, held = found
        mine = self._is_mine(held)
        arguments = ("", held.tag, held.token, "for a reason", -1, told % 2)
        assert int(DEAD_LETTER.run(self.client, (), arguments)) == int(mine)
        self._return_unsent(held, mine=mine)
        self._look(moved={held.tag} if mine else set())

    def _return_unsent(self, held: Held, *, mine: bool) -> None:
        """What an ended claim has reserved and not settled, nobody has used."""
        if mine and held.job.ticket in self.open:
            self.open.remove(held.job.ticket)
            self.meter.give_back(self.client.now)
            self.purse.give_back(held.job.ticket)

    def decide(self, which: int, job: int) -> None:
        """A worker asks whether its job ends by itself."""
        if (found := self._held(which, job, keep=True)) is not None:
            _, held = found
            DECIDE.run(self.client, (), ("", task_id_of(held.tag), "", KEPT_S, held.tag, held.token))
            self._look()

    def settle(self, which: int, outcome: int) -> None:
        """A call ends, in any way; one of a worker that has died may yet say so."""
        if not self.open:
            return
        ticket, word = self.open.pop(which % len(self.open)), _OUTCOMES[outcome % len(_OUTCOMES)]
        usage = Usage(1, 1, cache_read=outcome % 3 - 1, cache_created=outcome % 5 - 1)
        end = CallEnd(usage, outcome=word, prefix=BEGINNINGS[outcome // 7 % len(BEGINNINGS)])
        for again in range(1 + outcome % 7 % 2):
            known = self.budget.settle(self.client, ticket, end).known
            assert known == (not again), "a call is settled once, also one whose worker was taken for dead"
            if known and word == "unsent":
                self.meter.give_back(self.client.now)
            if known and word in {"unsent", "limited", "overloaded"}:
                self.purse.give_back(ticket)
            self._look()

    def die(self, which: int) -> None:
        """A worker is killed: it knows nothing any more, and another one takes its place."""
        self.workers[which % len(self.workers)] = Worker(ScriptClient(self.client))

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
