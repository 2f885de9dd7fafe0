"""What became of each job of `battle.py`, by three witnesses: the API's log, the workers' logs and the results."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter, defaultdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from monkeys import SOFT

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from monkeys import Kill

LINE = re.compile(r"^\[([^:]+:\d+:\d+,\d+): INFO/[^]]+\] Task \S+\[([\w-]+)\] (received|succeeded)", re.MULTILINE)

#: What a reason begins with that is none.
UNEXPLAINED = "unexplained"

#: Seconds from the API's answer until a worker has made a result of it, and from there to its ack, on a machine that
#: has far too much to do: one that is killed within them could not have known better.
ANSWER_TO_END, END_TO_ACK = 5.0, 1.0


class Receptions:
    """Which worker had which job when, by the workers' logs."""

    def __init__(self, logs: Iterable[Path]) -> None:
        """Read them; a log is named after its worker."""
        self._by_job: dict[str, list[tuple[float, str]]] = defaultdict(list)
        self.ended: dict[tuple[str, str], float] = {}
        self._logs = {log.stem: log for log in logs}
        for log in self._logs.values():
            for when, task_id, what in LINE.findall(log.read_text(errors="replace")):
                at = datetime.strptime(when, "%Y-%m-%d %H:%M:%S,%f").timestamp()  # noqa: DTZ007 - local, as Celery logs
                if what == "received":
                    self._by_job[task_id].append((at, log.stem))
                else:
                    self.ended[task_id, log.stem] = at
        for receptions in self._by_job.values():
            receptions.sort()

    def worker(self, task_id: str, at: float) -> str:
        """Return who had a job at a time."""
        receptions = self._by_job.get(task_id, [])
        number = bisect_right(receptions, (at, "~"))
        return receptions[number - 1][1] if number else "?"

    def story(self, task_id: str) -> list[str]:
        """Return all that workers have said of a job, and the last that each of them said at all."""
        lines = []
        for _, worker in self._by_job.get(task_id, []):
            said = self._logs[worker].read_text(errors="replace").splitlines()
            lines += [f"{worker}: {line}" for n, line in enumerate(said) if task_id in line or n > len(said) - 6]
        return lines


class Doubles:
    """The jobs that the API answered more than once, and why.

    Attributes:
        again: jobs whose call was begun more than once.
        cut: calls that died with their workers.
        reasons: of each answer that was not the last of its job.
        gaps: seconds from the answer to the death, of those whose worker was killed before its ack.
        stories: of the jobs without a good reason: their calls, and what workers have said.
    """

    def __init__(
        self, calls: list[dict[str, Any]], names: dict[str, str], receptions: Receptions, kills: list[Kill]
    ) -> None:
        """Judge."""
        self.reasons: Counter[str] = Counter()
        self.gaps: list[float] = []
        self.stories: list[Any] = []
        self._kills, ids = {kill.worker: kill for kill in kills}, {name: task_id for task_id, name in names.items()}
        by_job: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for call in calls:
            by_job[call["user_id"]].append(call)
        self.answered = {name for name, of in by_job.items() if any(map(_answered, of))}
        self.again = sum(len(of) > 1 for of in by_job.values())
        self.cut = sum(call["closed_by_client"] is not None for call in calls)
        for name, of in by_job.items():
            for call in list(filter(_answered, of))[:-1]:
                worker = receptions.worker(ids.get(name, ""), call["arrived"])
                ended = receptions.ended.get((ids.get(name, ""), worker))
                reason = self._reason(worker, call["ended"], ended)
                self.reasons[reason] += 1
                if reason.startswith(UNEXPLAINED):
                    self.stories.append(
                        [reason, repr(self._kills.get(worker)), of, receptions.story(ids.get(name, ""))]
                    )

    def _reason(self, worker: str, answered: float, ended: float | None) -> str:
        kill = self._kills.get(worker)
        if kill is None:
            return f"{UNEXPLAINED}: its worker was never killed"
        if kill.kind == "cold" and abs(kill.told + SOFT - answered) < END_TO_ACK:
            return "answered as the soft shutdown ended (cold)"
        if kill.killed is None:
            return f"{UNEXPLAINED}: its worker was told to stop, and not killed ({kill.kind})"
        gap = kill.killed - answered
        if gap < 0:
            return f"answered by the API after its worker's death ({kill.kind})"
        if gap > ANSWER_TO_END or (ended is not None and kill.killed - ended > END_TO_ACK):
            return f"{UNEXPLAINED}: its worker was killed long after the answer ({kill.kind})"
        self.gaps.append(round(gap, 4))
        return f"killed between answer and ack ({kill.kind})"


def _answered(call: dict[str, Any]) -> bool:
    return call["status"] == 200 and call["closed_by_client"] is None and call["ended"] is not None
