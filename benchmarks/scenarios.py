"""The scenarios: what is submitted when, and what is looked at. Each works with any contender."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import reach
from trial import Trial, trial

if TYPE_CHECKING:
    from collections.abc import Callable

#: Requests a second that the API allows in most scenarios; seconds that a call takes.
RATE, LATENCY = 20, 0.3
LIMITED = ("--rpm", str(RATE * 60), "--latency", str(LATENCY))
#: Seconds after the last kill in which a job has to be done, or is not: the lanes' leases are over after 18.
BACK_S = 40.0
#: Slots for critical alone, and for all.
SLOTS = {"reserved": 10, "shared": 100}


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is done; the defaults fit all contenders and runs into 20 minutes.

    Attributes:
        free_batch: jobs without an API limit.
        limited_batch: jobs at a limit.
        limited_s: seconds in which critical comes twice a second beside them, and before, `alone_s`, alone.
        waves: bursts of 20 critical jobs.
        slow_s, fast_s, idle_s: seconds in which critical comes 5 and 15 times a second, and not at all.
        nothing: jobs that do nothing.
        overload_s: seconds of all three lanes at 120 % of the limit.
        kills: of the worker for all lanes, one every two seconds.
        backlog: calls queued in batch.
        noisy: jobs of one tenant.
        waiters: on one bucket.
        drained: jobs that do nothing, by 1 to 8 processes.
    """

    free_batch: int = 500
    limited_batch: int = 300
    limited_s: float = 12
    alone_s: float = 7
    waves: int = 3
    slow_s: float = 3
    fast_s: float = 8
    idle_s: float = 6
    nothing: int = 6_000
    overload_s: float = 15
    kills: int = 4
    backlog: int = 100_000
    noisy: int = 300
    waiters: int = 1_000
    drained: int = 4_000


QUICK = Sizes(100, 60, 2, 2, 1, 1, 2, 2, 500, 5, 2, 5_000, 60, 100, 500)
FULL = Sizes(500, 1_000, 30, 15, 3, 10, 10, 20, 50_000, 60, 30, 1_000_000, 1_000, 1_000, 20_000)


def free(name: str, sizes: Sizes) -> dict[str, Any]:
    """(a) Batch fills all slots, and critical comes 8 times a second; the API has no limit."""
    with trial(name, "--latency", "0.1") as run:
        run.start(2, 8, limited=False)
        begun = time.time()
        for _ in range(sizes.free_batch):
            run.submit("batch", "batch")
        run.at_rate("critical", "critical", 8, sizes.free_batch * 0.1 / 8 * 0.7)
        run.drain(60)
        return {"critical": run.waits("critical"), **_time(run, begun, sizes.free_batch * 0.1 / 8), **run.accounts()}


def limited(name: str, sizes: Sizes) -> dict[str, Any]:
    """(b) and (i) Critical alone; then the same beside a batch that needs the whole limit; until all are done."""
    with trial(name, *LIMITED) as run:
        run.start(**SLOTS, limited=True)
        run.at_rate("alone", "critical", 2, sizes.alone_s)
        run.until_answered("alone", 10)
        time.sleep(1)
        begun = time.time()
        for _ in range(sizes.limited_batch):
            run.submit("batch", "batch")
        run.at_rate("critical", "critical", 2, sizes.limited_s)
        ideal = (sizes.limited_batch + 2 * sizes.limited_s - RATE) / RATE  # a second's worth is saved up
        run.drain(3 * ideal + 30)
        waits = {kind: run.waits(kind) for kind in ("alone", "critical", "batch")}
        ratio = {q: round(waits["critical"][q] / waits["alone"][q], 2) for q in ("p50", "p95")}
        return {**waits, "beside_to_alone": ratio, **_time(run, begun, ideal), **run.accounts()}


def bursts(name: str, sizes: Sizes) -> dict[str, Any]:
    """(h) Critical in bursts of 20, then 5 and 15 times a second, then not at all, beside an endless batch."""
    with trial(name, *LIMITED) as run:
        run.start(**SLOTS, limited=True)
        seconds = 3 * sizes.waves + sizes.slow_s + sizes.fast_s + sizes.idle_s
        for _ in range(round(RATE * (seconds + 5))):
            run.submit("batch", "batch")
        time.sleep(2)
        begun = time.time()
        for wave in range(sizes.waves):
            for _ in range(RATE):
                run.submit("wave", "critical")
            time.sleep(max(0.0, begun + 3 * (wave + 1) - time.time()))
        run.at_rate("slow", "critical", 5, sizes.slow_s)
        run.at_rate("fast", "critical", 15, sizes.fast_s)
        time.sleep(1)
        quiet = time.time()
        time.sleep(max(0.0, sizes.idle_s - 1))
        end = time.time()
        return {
            **{kind: run.waits(kind) for kind in ("wave", "slow", "fast")},
            "used": round(run.used(begun, end) / (RATE * (end - begun)), 3),
            "used_by_batch_alone": round(run.used(quiet, end) / (RATE * (end - quiet)), 3),
            "limited": run.accounts()["limited"],
        }


def nothing(name: str, sizes: Sizes) -> dict[str, Any]:
    """(f) Jobs that do nothing: queued a second, drained a second by one worker of 8 slots, its memory, CPU per job."""
    with trial(name) as run:
        alone, jobs = run.contender.alone, sizes.nothing
        if alone:
            run.contender.start(0, 8, limited=False)
        begun = time.perf_counter()
        run.contender.submit_nothing(jobs)
        queued = jobs / (time.perf_counter() - begun)
        if not alone:
            run.contender.start(0, 8, limited=False)
            run.rig.wait_until_ready()
        seen = _samples(run, 300)
        first, last = seen[0], seen[-1]
        drained = (first[1] - last[1]) / max(1e-9, last[0] - first[0])
        cpu = (last[2] - first[2]) * 1_000 / max(1, first[1] - last[1])
        figures = {"queued_per_s": round(queued), "memory_mb": round(run.rig.memory_mb(), 1)}
        # A process that has the queue within itself begins while it is filled: there is nothing to drain.
        return figures if alone else {**figures, "drained_per_s": round(drained), "cpu_ms_per_job": round(cpu, 3)}


def overload(name: str, sizes: Sizes) -> dict[str, Any]:
    """(c) All three lanes at 120 % of the limit together: 4 critical, 8 normal and 12 batch jobs a second."""
    return _overload(name, sizes, LIMITED)


def failures(name: str, sizes: Sizes) -> dict[str, Any]:
    """(d) The same, and the API answers 10 % of the calls with 500."""
    return _overload(name, sizes, (*LIMITED, "--server-error-rate", "0.1"))


def kills(name: str, sizes: Sizes) -> dict[str, Any]:
    """(e) The worker for all lanes is killed every two seconds and started anew, beside 20 jobs a second.

    At a random moment between two jobs: all calls take the same time, so otherwise each kill had the same one to hit. A
    process that dies keeps its connections for some ms, and what the API answers meanwhile nobody can have noted: it
    counts as done twice all the same, and is told as `answered_to_the_dead`.
    """
    with trial(name, "--latency", str(LATENCY)) as run:
        if run.contender.alone:
            return {"says": "its queue is gone with its process"}
        run.start(2, 20, limited=False)
        draw, killed = random.Random(7), []
        for _ in range(sizes.kills):
            kill = run.rig.doomed("shared")
            run.at_rate("batch", "batch", RATE, 2)
            time.sleep(draw.uniform(0, 1 / RATE))
            killed.append(time.time())
            kill()
            run.contender.start(0, 20, limited=False)
            run.rig.wait_until_ready()
        run.drain(BACK_S)
        accounts = run.accounts()
        del accounts["cpu_ms_per_job"]  # the dead do not tell
        twice = {job for job, times in run.answered("batch").items() if len(times) > 1}
        dead = {
            call["user_id"]
            for call in run.rig.calls()
            if call["status"] == 200 and any(call["arrived"] < at < call["ended"] for at in killed)
        }
        per_kill = round(accounts["done_twice"] / sizes.kills, 2)
        return {**accounts, "kills": sizes.kills, "twice_per_kill": per_kill, "answered_to_the_dead": len(twice & dead)}


def prompts(name: str, sizes: Sizes) -> dict[str, Any]:
    """(j) Batch has prompts of 100,000 tokens (400 kB), and critical comes 4 times a second; no API limit."""
    with trial(name, "--latency", str(LATENCY)) as run:
        run.start(2, 8, limited=False)
        for _ in range(sizes.free_batch // 4):
            run.submit("batch", "batch", tokens=100_000)
        run.at_rate("critical", "critical", 4, sizes.free_batch / 4 * LATENCY / 8)
        run.drain(60)
        return {"critical": run.waits("critical"), **run.accounts()}


SCENARIOS: dict[str, Callable[[str, Sizes], dict[str, Any]]] = {
    scenario.__name__: scenario
    for scenario in (
        *(limited, bursts, free, nothing),
        *(overload, failures, kills, prompts),
        *(reach.backlog, reach.tenants, reach.waiters, reach.processes),
    )
}


def _time(run: Trial, begun: float, ideal: float) -> dict[str, Any]:
    """Return how long all jobs took, and how often that is the least possible."""
    last = max((max(times) for times in run.answered("batch", "critical").values()), default=time.time())
    return {"seconds": round(last - begun, 1), "to_ideal": round((last - begun) / ideal, 3)}


def _samples(run: Trial, seconds: float) -> list[tuple[float, int, float]]:
    """Return when how many jobs were left, and the CPU used by then, from the first that is done to the last."""
    end, found = time.monotonic() + seconds, [(time.monotonic(), run.contender.left(), run.rig.cpu_seconds())]
    while found[-1][1] and time.monotonic() < end:
        time.sleep(0.1)  # a look costs the broker something, too
        sample = (time.monotonic(), run.contender.left(), run.rig.cpu_seconds())
        found = [*(found if sample[1] < found[0][1] or len(found) > 1 else []), sample]
    return found


def _overload(name: str, sizes: Sizes, options: tuple[str, ...]) -> dict[str, Any]:
    with trial(name, *options) as run:
        run.start(**SLOTS, limited=True)
        begun, end = time.time(), time.time() + sizes.overload_s
        for n in range(round(4 * sizes.overload_s)):
            for lane, jobs in (("critical", 1), ("normal", 2), ("batch", 3)):
                for _ in range(jobs):
                    run.submit(lane, lane)
            time.sleep(max(0.0, begun + (n + 1) / 4 - time.time()))
        used = run.used(begun + 2, end) / (RATE * (end - begun - 2))
        run.drain(sizes.overload_s + 30)
        waits = {lane: run.waits(lane) for lane in ("critical", "normal", "batch")}
        return {**waits, "used": round(used, 3), **run.accounts()}
