"""Soak the lanes: mixed traffic for minutes or hours, while all that can fail does; then account for every job.

Calls, streams, batches, chords, a task that makes its own call, cancellations and tenants, beside kills of workers,
restarts and failovers of the broker, cut connections, a full disk, a full memory, and outages of the API. It ends with
0 if every job is accounted for by its id and no process' memory, files or threads grow, else with 1. Needs Linux.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from kit.waiting import wait_until
from redis import RedisError
from soaking import faults
from soaking.ground import Ground, stop
from soaking.ledger import LOSING, WRITTEN_WITHIN, Fault
from soaking.watch import Watch

from demo.processes import interruptible

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds: of calm after each fault; without any end of a job after which the rest is lost; until nothing is left.
CALM, PATIENCE, TO_SETTLE = 8.0, 90.0, 60.0


def soak(ground: Ground, watch: Watch, minutes: float, say: Callable[[str], None]) -> None:
    """Do one thing after another for as long as asked, and then wait for all jobs to end."""
    until = time.monotonic() + 60 * minutes
    killer = faults.Killer(ground, watch.ledger.faults.append)
    killer.start()
    try:
        for fault in itertools.cycle(faults.ALL):
            _be_calm(watch, min(CALM, until - time.monotonic()))
            if time.monotonic() >= until or killer.failed:
                break
            began = time.time()
            fault(ground)
            ground.pair.wait_until_well()
            watch.ledger.faults.append(Fault(fault.__name__.replace("_", " "), began, time.time()))
            say(f"{fault.__name__:16} {time.time() - began:5.1f} s; {watch}")
    finally:
        killer.end()
    if killer.failed:
        raise killer.failed
    stop(ground.web)
    say(f"nothing is sent any more; {watch}")
    _wait_for_the_end(watch)


def _be_calm(watch: Watch, seconds: float) -> None:
    time.sleep(max(0.0, seconds))
    watch.check()


def _wait_for_the_end(watch: Watch) -> None:
    """Return once all has ended, or nothing has for a while."""
    left, since = watch.ledger.due(), time.monotonic()
    while left and time.monotonic() - since < PATIENCE:
        time.sleep(0.5)
        watch.check()
        if (now := watch.ledger.due()) != left:
            left, since = now, time.monotonic()


def leftovers(ground: Ground) -> dict[str, int]:
    """Return what the broker still has of jobs, once it has had time to let go."""

    def places() -> dict[str, int]:
        with suppress(RedisError), ground.pair.client() as client:
            lines: list[Any] = list(client.scan_iter("lanes:line:*", count=1_000))
            found: dict[str, Any] = {name: client.zcard(f"lanes:{name}") for name in ("leases", "scheduled", "ended")}
            # A job in doubt may be a dead letter, as any other one.
            found["jobs"] = client.hlen("lanes:jobs") - client.zcard("lanes:dead")  # type: ignore[operator]
            return {
                **{name: int(number) for name, number in found.items() if number},
                **{str(line): 1 for line in lines},
            }
        return {"broker": 1}

    with suppress(AssertionError):
        wait_until(lambda: not places(), "nothing is left", TO_SETTLE)
    return places()


def measure(minutes: float, rate: float, logs: Path | None, say: Callable[[str], None]) -> dict[str, Any]:
    """Return the account of a soak."""
    began = time.time()
    with Ground(rate) as ground, Watch(ground) as watch:
        say(f"{len(ground.workers)} workers, two servers and a web app are up after {time.time() - began:.0f} s")
        soak(ground, watch, minutes, say)
        left = leftovers(ground)
        watch.look_again()
        account = watch.ledger.audit()
        slopes = watch.samples.slopes()
        done = Counter(fault.name for fault in watch.ledger.faults)
        findings = account.pop("findings")
        findings += [f"left in the broker: {name}: {number}" for name, number in left.items()]
        findings += [str(slope) for slope in slopes if slope.grows]
        if findings and logs:
            ground.keep_logs(logs)
        return {
            "seconds": round(time.time() - began),
            **account,
            "faults": dict(done),
            "slopes": [str(slope) for slope in slopes],
            "complaints": dict(ground.complaints().most_common(40)),
            "findings": findings,
            "well": not findings,
        }


def report(figures: dict[str, Any]) -> str:
    """Return it for people."""
    listed = lambda counts: ", ".join(f"{number:,} {name}" for name, number in sorted(counts.items())) or "none"  # noqa: E731
    return "\n".join(
        [
            f"{figures['jobs']:,} jobs in {figures['seconds']} s: {listed(figures['outcomes'])}",
            *(f"  {kind}: {listed(counts)}" for kind, counts in figures["kinds"].items()),
            f"answered twice, and what had happened between: {listed(figures['twice'])}",
            f"faults: {listed(figures['faults'])}",
            f"lost to a {LOSING!r}: only what was sent, or answered, from {WRITTEN_WITHIN:g} s before it to its end",
            *figures["slopes"],
            *(f"finding: {finding}" for finding in figures["findings"]),
            "Every job is accounted for, and nothing grows." if figures["well"] else "NOT WELL",
        ]
    )


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="how long faults are made")
    parser.add_argument("--rate", type=float, default=10.0, help="jobs per second")
    parser.add_argument("--logs", type=Path, help="folder for the logs of a soak that is not well")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    say = lambda line: print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)  # noqa: E731
    with interruptible():
        figures = measure(arguments.minutes, arguments.rate, arguments.logs, say)
    print(json.dumps(figures) if arguments.json else report(figures))
    sys.exit(not figures["well"])


if __name__ == "__main__":
    main()
