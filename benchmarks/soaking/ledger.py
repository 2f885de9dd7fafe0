"""What became of every job, by what its sender, the API and the result backend say of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: Errors that a job may end with when the API or the broker fails, or when it is cancelled; all others are findings.
REASONS = frozenset(
    {"DeadlineExceeded", "ApiError", "ApiUnreachable", "CallTimeout", "ChordError", "BrokerUnreachable"}
    | {"MaybeQueued", "LaneFull", "Cancelled", "TaskRevokedError"}
)

#: What a reader may be told of its stream, besides.
READINGS = frozenset({"whole", "left", "overloaded_error", "api_error", "timeout_error", "cancelled"})

#: The fault that may lose what a master has just said it had: replication follows a moment later. How many jobs each
#: may lose, and in how many seconds before it until its end a job was sent, or answered and its result written.
LOSING, MOST_LOST, WRITTEN_WITHIN = "master lost", 2, 2.0

#: Seconds around a fault in which a call that was made may have been forgotten.
AROUND = 2.0


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that was done on purpose, and for how long, in seconds since the epoch."""

    name: str
    began: float
    ended: float

    def touches(self, since: float, until: float) -> bool:
        """Say whether it was at work at any moment between two."""
        return self.began - AROUND <= until and since <= self.ended + AROUND


@dataclass(slots=True)
class Job:
    """What is known of one.

    Attributes:
        told: its sender's last word: ``sent``, ``refused``, ``doubt``; ``answered`` or ``failed`` of who waited.
        id: of its result, where its sender has one.
        at: when that was.
        end: ``done``, or why it failed; None: nobody knows of an end.
        calls: that the API answered whole, each from its arrival to its end.
        cancelled: by its sender, and it was told that this came in time.
    """

    told: str
    id: str | None
    at: float
    end: str | None = None
    calls: list[tuple[float, float]] = field(default_factory=list)
    cancelled: bool = False


class Ledger:
    """All jobs by the numbers that their sender gave them."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.faults: list[Fault] = []
        self.findings: list[str] = []
        self._of_id: dict[str, str] = {}
        self._open: dict[str, None] = {}
        self._early: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)

    def hear(self, line: Mapping[str, Any]) -> None:
        """Take a line of the traffic's."""
        what, number = line["what"], line["job"]
        if what in {"sent", "refused", "doubt", "answered", "failed"}:
            job = self.jobs[number] = Job(what, line.get("id"), line["at"], calls=self._early.pop(number, []))
            job.end = {"answered": "done", "failed": line.get("why"), "refused": line.get("why")}.get(what)
            if job.end is None and job.id is not None:
                self._of_id[job.id] = number
                self._open[job.id] = None
        elif what == "cancelled":
            self.jobs[number].cancelled = line["won"]
        elif what == "read" and line["how"] not in READINGS | REASONS:
            self.findings.append(f"{number}: its reader got {line['how']!r}")
        elif what == "surprise":
            self.findings.append(f"{number} raised {line['why']}")

    def open(self) -> list[str]:
        """Return the ids of the jobs of which no end is known."""
        return list(self._open)

    def due(self) -> int:
        """Return how many of them have to end: those that were surely queued."""
        return sum(self.jobs[self._of_id[task_id]].told == "sent" for task_id in self.open())

    def learn(self, task_id: str, state: str, why: str | None) -> None:
        """Take what the result backend says of an id: a state of Celery's, and the type of an error."""
        end = {"SUCCESS": "done", "REVOKED": "Cancelled", "FAILURE": why or "?"}.get(state)
        if end is None:
            return
        job = self.jobs[self._of_id[task_id]]
        if job.end not in {None, end}:
            self.findings.append(f"{self._of_id[task_id]} had ended as {job.end}, and then as {end}")
        if job.end is None and end != "done" and end not in REASONS:
            self.findings.append(f"{self._of_id[task_id]} failed with {end}")
        job.end = end
        self._open.pop(task_id, None)

    def witness(self, calls: Iterable[Mapping[str, Any]]) -> None:
        """Take what the API says of calls that have ended; only whole answers count."""
        for each in calls:
            whole = each["status"] == 200 and each["fault"] is None and each["closed_by_client"] is None
            if whole and each["user_id"]:
                job = self.jobs.get(each["user_id"])
                calls_of = self._early[each["user_id"]] if job is None else job.calls
                calls_of.append((each["arrived"], each["ended"]))

    def audit(self) -> dict[str, Any]:
        """Account for each job once; whatever cannot be accounted for is among the findings."""
        outcomes: Counter[str] = Counter()
        kinds: defaultdict[str, Counter[str]] = defaultdict(Counter)
        twice: Counter[str] = Counter()
        findings = list(self.findings)
        for number, job in self.jobs.items():
            outcome = self._outcome(number, job, findings)
            outcomes[outcome] += 1
            kinds[number.partition("-")[0]][outcome] += 1
            if len(job.calls) > 1:
                twice[self._why_twice(number, job, findings)] += 1
        findings += [f"{number} was called, and nobody has sent it" for number in self._early]
        losing = sum(fault.name == LOSING for fault in self.faults)
        if outcomes[f"lost: {LOSING}"] > MOST_LOST * losing:
            findings.append(f"{outcomes[f'lost: {LOSING}']} jobs are lost with {losing} masters")
        told = {kind: dict(counts) for kind, counts in sorted(kinds.items())}
        return {
            "jobs": len(self.jobs),
            "outcomes": dict(outcomes),
            "kinds": told,
            "twice": dict(twice),
            "findings": findings,
        }

    def _outcome(self, number: str, job: Job, findings: list[str]) -> str:
        if job.told == "refused" and job.calls:
            findings.append(f"{number} was refused ({job.end}), and then it was called")
        if job.cancelled and job.end != "Cancelled":
            findings.append(f"{number} was cancelled in time, and ended as {job.end}")
        if job.end is None:
            if job.told == "doubt":
                return "never queued" if not job.calls else "in doubt, called"
            if self._may_be_lost(job):
                return f"lost: {LOSING}"
            findings.append(f"{number} is lost: {job}")
            return "lost"
        if job.end == "done" and job.told != "answered" and not job.calls and not number.startswith("joined"):
            findings.append(f"{number} is done, and the API knows of no call")
        if job.end == "done":
            return "done"
        return f"refused: {job.end}" if job.told == "refused" else f"failed: {job.end}"

    def _may_be_lost(self, job: Job) -> bool:
        """Say whether what was last written of a job may not have been replicated when a master died."""
        written = (job.at, *(ended for _, ended in job.calls))
        losing = [fault for fault in self.faults if fault.name == LOSING]
        return any(fault.began - WRITTEN_WITHIN <= at <= fault.ended for fault in losing for at in written)

    def _why_twice(self, number: str, job: Job, findings: list[str]) -> str:
        """Name what was done between a job's first whole answer and the call for its last one."""
        calls = sorted(job.calls)
        why = sorted({fault.name for fault in self.faults if fault.touches(calls[0][0], calls[-1][0])})
        if not why:
            findings.append(f"{number} was called {len(calls)} times, and nothing had happened: {calls}")
        return " + ".join(why) or "no reason"
