"""Findings: the figures of a run, the one sentence that follows from them, and the table that shows them."""

from __future__ import annotations

import bisect
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from celery_app.lanes import BATCH, CRITICAL
from celery_app.metrics.stats import get_queue_stats

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from demo.run import Job, Run

Json = dict[str, Any]

#: Documents queued at least, for a wait to count as one beside a batch.
BACKLOG = 100
#: ms that a person does not notice. Source: R. B. Miller, "Response time in man-computer conversational transactions",
#: 1968: up to 0.1 s an answer seems immediate.
UNNOTICED_MS = 100
RATE_LIMITED = 429
COLUMNS = ("p50", "p95", "p99", "max")


def findings(run: Run, calls: Iterable[Mapping[str, Any]], seconds: float) -> Json:
    """Return the figures of a run that is over after some seconds, by the simulated API's own, independent log."""
    limited = note_arrivals({job.user_id: job for jobs in run.jobs.values() for job in jobs}, calls)
    lanes = {
        lane: {
            "jobs": len(jobs),
            "failed": sum(job.error is not None for job in jobs),
            "wait_ms": summary(waits_ms(jobs)),
            "throughput_per_s": round(len(jobs) / (max(job.ended for job in jobs) - jobs[0].submitted), 2),
            "limited": sum(limited[job.user_id] for job in jobs),
        }
        for lane, jobs in run.jobs.items()
    }
    jobs = while_queued(run.jobs[CRITICAL.name], run.jobs[BATCH.name], BACKLOG)
    beside: Json = {"queued_at_least": BACKLOG, "jobs": len(jobs), "wait_ms": summary(waits_ms(jobs))}
    errors = Counter(job.error for jobs in run.jobs.values() for job in jobs if job.error is not None)
    found = {"seconds": round(seconds, 1), "lanes": lanes, "critical_beside_batch": beside, "errors": dict(errors)}
    return {**found, "sentence": sentence(beside["wait_ms"])}


def sentence(waits: Json) -> str:
    """Say in plain words what the waits beside a batch mean for somebody who asks a chat question."""
    if waits["p50"] is None:
        return f"No chat question was asked while {BACKLOG}+ documents were queued, so this run says nothing about one."
    told = f"{waits['p50']:,.0f} ms (median), {waits['max']:,.0f} ms at worst: {_verdict(waits)}"
    return f"While {BACKLOG}+ documents were queued, a chat question reached the API after {told}."


def _verdict(waits: Json) -> str:
    if waits["max"] <= UNNOTICED_MS:
        return "it never waited behind the batch"
    if waits["p95"] <= UNNOTICED_MS:
        return f"at least 95 in 100 went within {UNNOTICED_MS} ms, but not all"
    return f"more than 5 in 100 had to wait for over {UNNOTICED_MS} ms"


def note_arrivals(jobs: Mapping[str, Job], calls: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """Note in each job, by its user id, when its first call arrived; return how many of its calls got 429.

    A call that was turned away with 429 does not count: its job waits on.
    """
    limited: Counter[str] = Counter()
    for call in calls:
        job = jobs.get(call["user_id"])
        if call["status"] == RATE_LIMITED:
            limited[call["user_id"]] += 1
        elif job is not None:
            job.arrived = job.arrived or call["arrived"]
    return limited


def waits_ms(jobs: Iterable[Job]) -> list[float]:
    """Return the wait of each job that reached the API, in ms."""
    return [1_000 * (job.arrived - job.submitted) for job in jobs if job.arrived]


def while_queued(jobs: Iterable[Job], others: Iterable[Job], at_least: int) -> list[Job]:
    """Return those jobs during whose whole wait at least so many others were queued: submitted, and not at the API.

    The others are submitted once and then only leave, so it is enough to look at a wait's beginning and its end.
    """
    came = sorted(job.submitted for job in others)
    left = sorted(job.arrived for job in others if job.arrived)

    def queued(at: float) -> int:
        return bisect.bisect_right(came, at) - bisect.bisect_right(left, at)

    return [job for job in jobs if job.arrived and min(queued(job.submitted), queued(job.arrived)) >= at_least]


def summary(values: Iterable[float]) -> dict[str, float | None]:
    """Return p50, p95, p99 (by nearest rank) and max; None where there is no value."""
    ordered = sorted(values)
    ranks = {f"p{percent}": math.ceil(percent / 100 * len(ordered)) - 1 for percent in (50, 95, 99)}
    ranks["max"] = len(ordered) - 1
    return {name: round(ordered[rank], 1) if ordered else None for name, rank in ranks.items()}


def report(found: Json) -> Group:
    """Return a table with a row for each lane, and below it what the figures mean."""
    lanes, beside = found["lanes"], found["critical_beside_batch"]
    batch, normal, critical = (lanes[name]["jobs"] for name in ("batch", "normal", "critical"))
    jobs = f"{batch} documents, {normal} summaries, {critical} chat questions"
    title = f"{jobs}: all answered after {found['seconds']:.0f} s"
    table = Table("lane", box=SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    for name in ("jobs", *COLUMNS, "jobs/s", "429s"):
        table.add_column(name, justify="right")
    for lane, figures in lanes.items():
        rest = f"{figures['throughput_per_s']:,.1f}", str(figures["limited"])
        table.add_row(lane, str(figures["jobs"]), *_waits(figures), *rest)
        if lane == CRITICAL.name:
            label = f"  beside {beside['queued_at_least']}+*"
            table.add_row(label, str(beside["jobs"]), *_waits(beside), "", "", style="dim")
    errors = [Text(f"{count} failed: {error}", style="red") for error, count in found["errors"].items()]
    meaning = "p50 to max: ms from submission until the call reached the API; * beside so many in batch"
    return Group(table, Text(meaning, style="dim"), Text(f"\n{found['sentence']}", style="bold"), *errors)


def _waits(figures: Json) -> list[str]:
    return ["-" if value is None else f"{value:,.0f}" for value in figures["wait_ms"].values()]


def progress(run: Run, app: Any) -> str:
    """Return a line for each lane, of a run that goes on: what is answered, what is queued and how long it waits."""
    lines = []
    for lane, stats in get_queue_stats(app)["lanes"].items():
        jobs, waits = f"{run.answered(lane):>4} of {len(run.jobs[lane]):<4} answered", stats["wait_ms"]
        said = "" if waits["p50"] is None else f"wait {waits['p50']:,.0f} ms, worst {waits['max']:,.0f} ms"
        lines.append(f"[bold]{lane:8}[/bold] {jobs} {stats['depth']:>4} queued  [dim]{said}[/dim]")
    return "\n".join(lines)
