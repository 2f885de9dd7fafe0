"""The scenarios that ask how far it reaches: a long backlog, one noisy tenant, a thousand waiters, many processes."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from contenders.contender import parameters
from rig import Rig, quantiles
from trial import trial

if TYPE_CHECKING:
    from scenarios import Sizes
    from trial import Trial

#: Calls a second that the API allows where tenants share it; that critical makes beside a backlog, and for how long.
RATE, CRITICAL_RATE, CRITICAL_S = 20, 10, 4.0
#: Tenants beside the noisy one, jobs of each, and seconds for all of them to be answered before they count as waiting.
QUIET, EACH, QUIET_S = 5, 4, 20.0
#: Processes that the waiters are in, and seconds for which all of them ask.
WAITING_PROCESSES, WAITING_S = 4, 5.0
#: Worker processes, of eight slots each.
PROCESSES = (1, 2, 4, 8)


def backlog(name: str, sizes: Sizes) -> dict[str, Any]:
    """(g) Critical ten times a second beside 1,000 calls queued in batch, and beside very many; no API limit."""
    found: dict[str, Any] = {}
    with trial(name, "--latency", "0.1") as run:
        run.start(2, 8, limited=False)
        for kind, jobs in (("few", 1_000), ("many", sizes.backlog)):
            begun = time.perf_counter()
            run.contender.fill(jobs, parameters("queued"))
            found[f"{kind}_filled_s"] = round(time.perf_counter() - begun, 1)
            run.at_rate(kind, "critical", CRITICAL_RATE, CRITICAL_S)
            run.until_answered(kind, 10)
            found[kind] = run.waits(kind)
        found["queued"] = run.contender.left()
        found["bytes_per_job"] = round(run.rig.redis.info("memory")["used_memory"] / found["queued"])
    return {**found, "ratio": round(found["many"]["p50"] / found["few"]["p50"], 2)}


def tenants(name: str, sizes: Sizes) -> dict[str, Any]:
    """(k) One tenant has queued hundreds of calls, and five others come with four each; 20 calls a second allowed."""
    with trial(name, "--rpm", str(RATE * 60), "--latency", "0.3") as run:
        run.start(0, 40, limited=True)
        for _ in range(sizes.noisy):
            run.submit("noisy", "batch", tenant="noisy")
        time.sleep(2)  # what was saved up of the limit is gone
        for _ in range(EACH):
            for number in range(QUIET):
                run.submit("quiet", "batch", tenant=f"quiet-{number}")
        run.until_answered("quiet", QUIET_S)
        return {"quiet": run.waits("quiet"), "limited": run.accounts()["limited"]}


def waiters(name: str, sizes: Sizes) -> dict[str, Any]:
    """(l) A thousand threads in four processes ask one bucket for a call, each again once it has one."""
    threads, processes = sizes.waiters // WAITING_PROCESSES, range(WAITING_PROCESSES)
    with Rig() as rig:
        for number in processes:
            rig.process(f"waiting-{number}", "ready", "waiting", name, str(threads), str(WAITING_S))
        rig.wait_until_ready()
        rig.redis.publish("begin", "")
        logs = [rig.log(f"waiting-{number}") for number in processes]
        end = time.monotonic() + 6 * WAITING_S
        while not all("]" in log.read_text() for log in logs) and time.monotonic() < end:
            time.sleep(0.1)
        took = [each for log in logs for each in json.loads(log.read_text().splitlines()[-1])]
    return {
        "waiters": threads * WAITING_PROCESSES,
        "asked_per_s": round(len(took) / WAITING_S),
        "wait": quantiles(took),
    }


def processes(name: str, sizes: Sizes) -> dict[str, Any]:
    """Jobs that do nothing, drained by 1 to 8 worker processes: how many a second, and whose CPU they take."""
    found = {}
    with trial(name) as run:
        for number in PROCESSES:
            for n in range(len(run.rig.workers), number):
                run.contender.add_worker(f"shared-{n}", 8)
            run.rig.wait_until_ready()
            run.contender.fill(sizes.drained)  # by far faster than it is drained
            found[str(number)] = _drained(run)
    return found


def _drained(run: Trial) -> dict[str, Any]:
    begun, left, cpu, broker = _look(run)
    while (seen := _look(run))[1] and seen[0] < begun + 60:
        time.sleep(0.05)
    seconds = seen[0] - begun
    return {
        "drained_per_s": round((left - seen[1]) / seconds),
        "cores": round((seen[2] - cpu) / seconds, 2),
        "broker_cores": round((seen[3] - broker) / seconds, 2),
    }


def _look(run: Trial) -> tuple[float, int, float, float]:
    return time.monotonic(), run.contender.left(), run.rig.cpu_seconds(), run.rig.broker_cpu_seconds()
