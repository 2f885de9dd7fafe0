"""Findings: the figures of a run, and the one sentence that follows from them."""

from __future__ import annotations

import json
import time
import urllib.request
from typing import TYPE_CHECKING, Any

from celery_app.lanes import BATCH, CRITICAL
from celery_app.metrics.stats import get_queue_stats
from demo.waits import first_arrivals, summary, waits_ms, while_queued

if TYPE_CHECKING:
    from demo.job import Job
    from demo.run import Run
    from demo.stack import Stack

Json = dict[str, Any]

#: Documents queued at least, for a wait to count as one beside a batch.
BACKLOG = 100
#: ms that a person does not notice. Source: R. B. Miller, "Response time in man-computer conversational transactions",
#: 1968: up to 0.1 s an answer seems immediate.
UNNOTICED_MS = 100
#: Seconds for the simulator's log of calls.
CALLS_SECONDS = 5.0
#: Seconds of waits that `get_queue_stats` can look back.
LOOK_BACK = 600
#: Seconds until the workers, which write once a second, must have written what they did last.
WRITTEN_SECONDS = 3.0
#: Seconds between two looks.
TICK = 0.1


def findings(stack: Stack, run: Run, seconds: float, before: Json) -> Json:
    """Return the figures of a run that is over.

    Args:
        stack: that it ran on, still up.
        run: with every job ended.
        seconds: that it took.
        before: `lane_stats` from before the run.
    """
    stats = _written_stats(stack, run, seconds, before)
    lanes = {
        lane: {
            "jobs": len(jobs),
            "failed": sum(job.error is not None for job in jobs),
            "wait_ms": {name: stats[lane]["wait_ms"][name] for name in ("p50", "p95", "p99", "max")},
            "throughput_per_s": _throughput(jobs),
            "limited": stats[lane]["limited"] - before[lane]["limited"],
        }
        for lane, jobs in run.jobs.items()
    }
    found: Json = {"seconds": round(seconds, 1), "simulated": stack.simulated, "lanes": lanes}
    found["critical_beside_batch"] = _beside_batch(stack.settings.base_url, run) if stack.simulated else None
    return {**found, "sentence": sentence(found), "errors": _errors(run)}


def lane_stats(stack: Stack, seconds: float = 1.0) -> Json:
    """Return what `get_queue_stats` says of each lane, with the waits of the last `seconds`."""
    lanes: Json = get_queue_stats(stack.app, min(LOOK_BACK, seconds))["lanes"]
    return lanes


def _written_stats(stack: Stack, run: Run, seconds: float, before: Json) -> Json:
    """Wait until the stats have every job of the run."""
    deadline = time.monotonic() + WRITTEN_SECONDS
    while True:
        stats = lane_stats(stack, seconds + WRITTEN_SECONDS)
        complete = all(_ended(stats[lane]) - _ended(before[lane]) >= len(jobs) for lane, jobs in run.jobs.items())
        if complete or time.monotonic() > deadline:
            return stats
        time.sleep(TICK)


def _ended(lane: Json) -> int:
    return int(lane["processed"] + lane["failed"])


def sentence(found: Json) -> str:
    """Say in plain words what the figures mean for somebody who asks a chat question."""
    beside = found["critical_beside_batch"]
    if beside is None:
        waits, when = found["lanes"][CRITICAL.name]["wait_ms"], "Beside the batch"
    else:
        waits, when = beside["wait_ms"], f"While {BACKLOG}+ documents were queued"
    if waits["p50"] is None:
        return f"No chat question was asked while {BACKLOG}+ documents were queued, so this run says nothing about one."
    left = f"a chat question left for the API after {_words(waits['p50'])} (median), {_words(waits['max'])} at worst"
    return f"{when}, {left}: {_verdict(waits)}."


def _verdict(waits: Json) -> str:
    if waits["max"] <= UNNOTICED_MS:
        return "it never waited behind the batch"
    if waits["p95"] <= UNNOTICED_MS:
        return f"at least 95 in 100 went within {UNNOTICED_MS} ms, but not all"
    if waits["p50"] <= UNNOTICED_MS:
        return f"most went within {UNNOTICED_MS} ms, but more than 5 in 100 had to wait"
    return "it did have to wait"


def _beside_batch(base_url: str, run: Run) -> Json:
    """Take the waits from the simulator's own log of calls, an independent witness."""
    with urllib.request.urlopen(f"{base_url}/_calls", timeout=CALLS_SECONDS) as answer:  # noqa: S310 - our own URL
        arrivals = first_arrivals(json.load(answer)["calls"])
    jobs = while_queued(run.jobs[CRITICAL.name], run.jobs[BATCH.name], arrivals, BACKLOG)
    return {"queued_at_least": BACKLOG, "jobs": len(jobs), "wait_ms": summary(waits_ms(jobs, arrivals))}


def _throughput(jobs: list[Job]) -> float | None:
    ends = [job.ended for job in jobs if job.ended is not None]
    begun = min((job.submitted for job in jobs), default=0.0)
    return round(len(ends) / (max(ends) - begun), 2) if ends else None


def _errors(run: Run) -> dict[str, int]:
    """Return each error -> how many jobs it ended."""
    errors: dict[str, int] = {}
    for error in (job.error for jobs in run.jobs.values() for job in jobs if job.error is not None):
        errors[error] = errors.get(error, 0) + 1
    return errors


def _words(ms: float) -> str:
    return f"{ms:,.0f} ms"
