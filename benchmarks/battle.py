"""Whether a job is lost or done twice while workers are killed in four ways: celery-redis-plus's profile, here.

One piece is a fleet of real workers (forked, see `nursery.py`), a simulated API, a steady load in all three lanes, and
monkeys that kill until so many kills or minutes are over; then all that is left is worked off and each job accounted
for. Pieces add up in a file. Exits with 1 if a job is lost, dead, or done twice without a reason.
`python benchmarks/battle.py --kills 100 --json battle.json`; `--kills 0 --json battle.json` only sums up.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from battle_jobs import LATENCY, PACE, Jobs
from battle_ledger import UNEXPLAINED, Doubles, Receptions
from monkeys import KINDS, SOFT, Monkeys
from nursery import Forked
from redis import Redis
from rig import Rig

from celery_app import LANES, create_app
from celery_app.settings import Settings

#: Seconds between two lines of progress, and without any job's end after which the rest is lost: three times as long
#: as a killed worker's lease.
TELL_EVERY, PATIENCE = 15.0, 60.0

#: A limit that bounds nothing here: one that is not known is found by trying, which takes a while.
KNOWN = {"EZAI_RPM": "1000000"}


def main() -> None:
    """Run one piece, add it to the file, and print the sum."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped: the piece is not counted"))
    pieces = json.loads(options.json.read_text()) if options.json and options.json.exists() else []
    if options.kills:
        try:
            pieces.append(piece(options))
        except KeyboardInterrupt:
            sys.exit("interrupted: the piece is not counted")
        if options.json:
            options.json.write_text(json.dumps(pieces, indent=1) + "\n")
    total = summed(pieces)
    print(say(total))
    sys.exit(bool(total["lost"] or total["dead"] or total["failed"] or total["unexplained"] or total["errors"]))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="of workers, of all kinds; 0: only sum up")
    parser.add_argument("--minutes", type=float, default=90.0, help="for which they go on at most")
    parser.add_argument("--json", type=Path, help="file that the piece is added to")
    parser.add_argument("--workers", type=int, default=10)
    parser.add_argument("--slots", type=int, default=16, help="of each worker")
    parser.add_argument("--rate", type=float, default=60.0, help="jobs per second")
    parser.add_argument("--monkeys", type=int, default=8, help="that kill at the same time")
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between two kills of a monkey")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS), help="of kills")
    return parser.parse_args()


def piece(options: argparse.Namespace) -> dict[str, Any]:
    """Run one piece, and return what became of its jobs."""
    api = ("--latency", str(LATENCY), "--tokens-per-second", str(PACE), "--output-tokens", "1000")
    with ExitStack() as stack:
        rig = stack.enter_context(Rig(*api))
        redis = stack.enter_context(Redis.from_url(rig.broker_url))
        lanes = tuple(replace(lane, deadline=None) for lane in LANES)  # late is another matter than lost
        app = create_app(Settings(broker_url=rig.broker_url, result_backend=rig.broker_url, lanes=lanes))
        started = iter(range(1_000_000))
        arguments = [
            "-Q",
            "critical,normal,batch",
            "-c",
            str(options.slots),
            "--without-mingle",
            f"worker.soft_shutdown_timeout={SOFT}",
        ]

        def start() -> Forked:
            return Forked(rig.folder, f"w{next(started)}", arguments, {**rig.environment, **KNOWN})

        monkeys = Monkeys(options.workers, start, options.kills, options.pause, options.kinds)
        stack.callback(monkeys.end)
        monkeys.let_loose(options.monkeys)
        begun, jobs = time.time(), Jobs(app, redis, options.rate)
        _fight(jobs, monkeys, options.minutes * 60)
        loaded = time.time() - begun
        _work_off(jobs)
        left = _left(redis)
        calls = rig.calls()
        doubles = Doubles(calls, jobs.names, Receptions(rig.folder.glob("w*.log")), monkeys.kills)
    return {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "seconds": round(loaded),
        "workers": options.workers,
        "jobs": len(jobs.names),
        "ends": dict(jobs.ends),
        "lost": [jobs.names[task_id] for task_id in jobs.open],
        "left": left,
        "made_up": len(jobs.done - doubles.answered),
        "kinds": dict(Counter(kill.kind for kill in monkeys.kills)),
        "sigkilled": sum(kill.killed is not None for kill in monkeys.kills),
        "errors": monkeys.errors,
        "again": doubles.again,
        "cut": doubles.cut,
        "reasons": dict(doubles.reasons),
        "gaps": doubles.gaps,
        "stories": doubles.stories,
    }


def _fight(jobs: Jobs, monkeys: Monkeys, seconds: float) -> None:
    begun = told = time.monotonic()
    while monkeys.at_work and not monkeys.errors:
        jobs.keep_up()
        now = time.monotonic()
        if now - begun > seconds:
            monkeys.stopping.set()
        if now - told > TELL_EVERY:
            told, kills = now, monkeys.kills
            killed = sum(kill.killed is not None for kill in kills)
            _tell(now - begun, f"{len(kills)} kills, {killed} by SIGKILL; {_progress(jobs)}")
        time.sleep(0.01)


def _work_off(jobs: Jobs) -> None:
    begun = told = since = time.monotonic()
    before = len(jobs.open)
    while jobs.open and time.monotonic() - since < PATIENCE:
        jobs.keep_up(sending=False)
        now = time.monotonic()
        if len(jobs.open) < before:
            before, since = len(jobs.open), now
        if now - told > TELL_EVERY:
            told = now
            _tell(now - begun, f"of working off; {_progress(jobs)}")
        time.sleep(0.05)


def _left(redis: Redis) -> dict[str, int]:
    """Return what the broker still has, once the last acks had their time."""
    end = time.monotonic() + PATIENCE
    while True:
        counts = {field.decode(): int(value) for field, value in redis.hgetall("lanes:counts").items()}
        left = {name: count for name, count in counts.items() if count and not name.endswith(":done")}
        left |= {key: count for key in ("leases", "dead") if (count := int(redis.zcard(f"lanes:{key}")))}
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.1)


def _progress(jobs: Jobs) -> str:
    return f"{len(jobs.names)} jobs sent, {len(jobs.open)} open, {dict(jobs.ends)}"


def _tell(seconds: float, text: str) -> None:
    print(f"{seconds:4.0f} s: {text}", file=sys.stderr, flush=True)


def summed(pieces: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the sum of pieces."""
    add = lambda name: sum((Counter(each[name]) for each in pieces), Counter[str]())  # noqa: E731
    count = lambda name: sum(each[name] for each in pieces)  # noqa: E731
    ends, reasons = add("ends"), add("reasons")
    unexplained = {reason: count for reason, count in reasons.items() if reason.startswith(UNEXPLAINED)}
    return {
        "pieces": len(pieces),
        "minutes": count("seconds") / 60,
        "per_worker": count("jobs") / max(1, sum(each["seconds"] * each["workers"] for each in pieces)),
        "jobs": count("jobs"),
        "kills": add("kinds"),
        "sigkilled": count("sigkilled"),
        "lost": sum(len(each["lost"]) for each in pieces),
        "dead": add("left"),
        "failed": ends - Counter({"SUCCESS": ends["SUCCESS"]}),
        "made_up": count("made_up"),
        "again": count("again"),
        "cut": count("cut"),
        "reasons": reasons,
        "unexplained": unexplained,
        "gaps": sorted(gap for each in pieces for gap in each["gaps"]),
        "errors": [error for each in pieces for error in each["errors"]],
    }


def say(total: dict[str, Any]) -> str:
    """Return the lines for a person."""
    kills, twice, gaps = total["kills"].total(), total["reasons"].total(), total["gaps"]
    text = (
        f"{total['pieces']} pieces, {total['minutes']:.0f} minutes, {total['jobs']:,} jobs, "
        f"{total['per_worker']:.1f}/s for each worker\n"
        f"{kills} kills {dict(total['kills'])}, {total['sigkilled']} by SIGKILL; {total['cut']} calls cut off\n"
        f"lost {total['lost']}, left at the broker {dict(total['dead'])}, failed {dict(total['failed'])}, "
        f"ended without an answer {total['made_up']}, begun again {total['again']}\n"
        f"done twice {twice}: {twice / max(1, kills):.3f} per kill"
    )
    lines = [text, *(f"  {count} {reason}" for reason, count in total["reasons"].most_common())]
    if gaps:
        lines.append(f"  killed after the answer: {gaps[len(gaps) // 2]:.3f} s median, {gaps[-1]:.3f} s at most")
    return "\n".join([*lines, *total["errors"]])


if __name__ == "__main__":
    main()
