"""The scheduler's world: each move does one thing, and checks what it may have changed and what must always hold."""

from kit.script_client import ScriptClient

from celery_app.scheduler.scripts import CANCEL, CONTROL, DROP_DEAD, REPLAY, REQUEUE
from scheduler_model.ground import Worker, task_id_of
from scheduler_model.publishing import COSTS, Publishing
from scheduler_model.working import Working

#: What stands behind a task's id in the names of the records of its messages.
RECORDS = ("", "~", "~~", "~~~")

#: What may be capped, beside the batches that there are.
CAPPED = ("all|", "lane|batch", "lane|critical", "tenant|ann")

#: Rounds in which a worker has done all that a world can hold.
_MOST_ROUNDS = 200

#: Keys that outlive the jobs: they have a lifetime, or are one for all jobs.
_LEFT = {"published", "ended", "cancel", "bell", "batch", "budget", "terms", "time", "number", "turns", "clocks"} | {
    "counts",
    "dead_totals",
    "wakes",
    "workers",
    "credits",
    "prefix",
    "passed",
    "controls",
    "quota",
}


class World(Publishing, Working):
    """Beside what publishers and workers do: those who cancel, and who look after dead letters."""

    def cancel(self, which: int) -> None:
        """Somebody cancels a job, wherever it is."""
        if (tag := self._any(which)) is not None:
            records = {f"{task_id_of(tag)}{end}" for end in RECORDS} & self.seen.jobs.keys()
            waiting = {each for each in records if self.seen.jobs[each].places & {"line", "scheduled"}}
            cancelled = CANCEL.run(self.client, (), ("", task_id_of(tag), 600))
            self._look(moved=waiting)
            for each in waiting if cancelled else ():
                assert self.seen.jobs[each].ending == "cancelled", f"{each} goes on"

    def set_cap(self, which: int, more: int) -> None:
        """An operator says what calls may cost, or that it does not matter."""
        names = sorted({*CAPPED, *(f"batch|{job.batch}" for job in self.seen.jobs.values() if job.batch)})
        self._set_cap(names[which % len(names)], -1 if more % 3 == 0 else COSTS * (more % 30))

    def _set_cap(self, name: str, value: int) -> None:
        CONTROL.run(self.client, (), ("", "ann", f"cap|{name}", value, 0))
        self.purse.caps.pop(name, None)
        if value >= 0:
            self.purse.caps[name] = value
        self._look()

    def replay(self, which: int, heard: int) -> None:
        """An operator takes a dead letter in hand, and puts it back, unless he is killed in between."""
        if (tag := self._any(which, "dead")) is None:
            return
        scripts = ScriptClient(self.client)
        token = f"{scripts.leases.process}:0"
        fresh = "ended" not in self.seen.jobs[tag].places
        (word,) = REPLAY.run(self.client, (), ("", token, "none", 60, 60, 0, tag))
        assert word in ({b"done", b"named"} if fresh else {b"untold"}), (tag, word)
        self._look(moved={tag} if word == b"done" else set())
        if word == b"done" and heard % 4 != 1:
            assert REQUEUE.run(self.client, (), ("", tag, token, 0, 0, 0, 0)) == 1
            self._look(moved={tag})

    def drop_dead(self, which: int) -> None:
        """An operator deletes a dead letter."""
        if (tag := self._any(which, "dead")) is not None:
            (word,) = DROP_DEAD.run(self.client, (), ("", tag))
            assert (word == b"untold") == ("ended" in self.seen.jobs[tag].places)
            self._look(gone={tag: "dropped"} if word == b"done" else {})

    def drain(self) -> None:
        """All workers die; one new one does all that is left. Nothing may remain, and all have ended in one way."""
        self.workers = [Worker(ScriptClient(self.client))]
        for name in [*CAPPED, *(f"batch|{job.batch}" for job in self.seen.jobs.values() if job.batch)]:
            self._set_cap(name, -1)
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
