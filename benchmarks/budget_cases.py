"""The budget in its harder cases, each with real workers, a real broker and the simulated API.

bursts   critical comes 15 a second for 10 s on top of an endless batch, then not at all for 20 s
tokens   input tokens are what is scarce
shares   normal and batch both have an endless backlog
hidden   nothing is configured, no header says anything; the limit is 20/s, then 8/s, then 40/s
headers  nothing is configured, the headers say it
models   one lane, a slow model and a fast one
outage   the API is overloaded for 15 s, then refuses connections for 15 s
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from rig import Rig, quantiles

if TYPE_CHECKING:
    from collections.abc import Callable

LATENCY = "0.3"  # s
#: Seconds after which a boosted lane's share is due in the case `shares`; the defaults would take a minute to see.
BOOST_AFTER = "3"


class Load:
    """Submits jobs, and finds them again in the API's log."""

    def __init__(self, rig: Rig, **env: str) -> None:
        self.rig = rig
        self.submitted: dict[str, float] = {}
        self._numbers: Counter[str] = Counter()
        rig.worker("critical", "-Q", "critical", "-c", "10", **env)
        rig.worker("shared", "-Q", "critical,normal,batch", "-c", "100", **env)
        os.environ.update(rig.environment)
        from celery_app import create_app
        from tasks import create_message

        self._task = create_app().tasks[create_message.name]
        self.submit("warm-up", lane="critical")
        time.sleep(1.5)

    def submit(self, kind: str, lane: str, tokens: int = 50, model: str = "bench-model") -> None:
        """Submit one job whose prompt has about so many tokens."""
        name = f"{kind}-{self._numbers[kind]}"
        self._numbers[kind] += 1
        messages = [{"role": "user", "content": "four" * tokens}]
        kwargs = {"model": model, "max_tokens": 50, "messages": messages, "metadata": {"user_id": name}}
        self.submitted[name] = time.time()
        self._task.apply_async(kwargs=kwargs, queue=lane)

    def at_rate(self, kind: str, rate: float, seconds: float, **job: Any) -> None:
        """Submit jobs to `critical` at a steady rate."""
        start = time.time()
        for n in range(round(rate * seconds)):
            self.submit(kind, lane="critical", **job)
            time.sleep(max(0.0, start + (n + 1) / rate - time.time()))

    def waits(self, kind: str) -> dict[str, float]:
        """Return the waits of all jobs of a kind, ms."""
        answered = {call["user_id"]: call["arrived"] for call in self.rig.calls() if call["status"] == 200}
        found = [
            answered[name] - at for name, at in self.submitted.items() if name.startswith(kind) and name in answered
        ]
        return {"jobs": len(found), **quantiles(found)} if found else {"jobs": 0}

    def counts(self, since: float, until: float) -> Counter[Any]:
        """Return the API's answers by status within a time."""
        return Counter(call["status"] for call in self.rig.calls() if since <= call["arrived"] < until)


def bursts() -> dict[str, Any]:
    """Critical bursts above an endless batch."""
    with Rig("--rpm", "1200", "--latency", LATENCY) as rig:
        load = Load(rig, EZAI_RPM="1200")
        for _ in range(1500):
            load.submit("batch", lane="batch")
        time.sleep(5)
        load.at_rate("critical", 15, 10)
        time.sleep(2)
        quiet = time.time()
        time.sleep(20)
        used = load.counts(quiet, quiet + 20)
        limited = rig.summary()["statuses"].get("429", 0)
        return {"critical_ms": load.waits("critical"), "batch_use": used[200] / (20 * 20), "limited": limited}


def tokens() -> dict[str, Any]:
    """Input tokens are scarce."""
    draw = random.Random(7)
    with Rig("--itpm", "100000", "--latency", LATENCY) as rig:
        load = Load(rig, EZAI_ITPM="100000")
        for _ in range(600):
            load.submit("batch", lane="batch", tokens=draw.randint(50, 3000))
        time.sleep(20)  # the burst that was saved up is gone
        start = time.time()
        for _ in range(60):
            load.submit("critical", lane="critical", tokens=draw.randint(50, 1000))
            time.sleep(1)
        used = sum(c["input_tokens"] for c in rig.calls() if c["status"] == 200 and start <= c["arrived"] < start + 60)
        statuses = load.counts(0, time.time())
        share = statuses[429] / max(1, sum(statuses.values()))
        return {"critical_ms": load.waits("critical"), "use": used / 100_000, "limited_share": share}


def shares() -> dict[str, Any]:
    """Two lanes with an endless backlog."""
    with Rig("--rpm", "1200", "--latency", LATENCY) as rig:
        load = Load(rig, EZAI_RPM="1200", LANES_BATCH_BOOST_AFTER=BOOST_AFTER, LANES_NORMAL_BOOST_AFTER=BOOST_AFTER)
        for _ in range(1500):
            load.submit("normal", lane="normal")
            load.submit("batch", lane="batch")
        time.sleep(10)
        start = time.time()
        load.at_rate("critical", 2, 40)
        end = time.time()
        calls = [c for c in rig.calls() if c["status"] == 200 and start <= c["arrived"] < end]
        kinds = Counter(call["user_id"].split("-")[0] for call in calls)
        total = sum(kinds.values())
        return {
            "critical_ms": load.waits("critical"),
            "share": {kind: round(count / total, 3) for kind, count in kinds.items()},
            "use": total / (20 * (end - start)),
            "limited": rig.summary()["statuses"].get("429", 0),
        }


def hidden() -> dict[str, Any]:
    """A limit that nobody tells, and that changes."""
    result = {}
    with Rig("--rpm", "1200", "--no-headers", "--latency", LATENCY) as rig:
        load = Load(rig)
        for _ in range(6000):
            load.submit("batch", lane="batch")
        for rate in (20, 8, 40):
            rig.control(rpm=rate * 60)
            time.sleep(45)
            settled = time.time()
            time.sleep(30)
            seen = load.counts(settled, settled + 30)
            calls = seen[200] + seen[429]
            result[f"{rate}/s"] = {
                "use": round(seen[200] / (30 * rate), 3),
                "limited_share": round(seen[429] / calls, 4),
            }
    return result


def headers() -> dict[str, Any]:
    """A limit that only the headers tell."""
    with Rig("--rpm", "1200", "--latency", LATENCY) as rig:
        load = Load(rig)
        for _ in range(1200):
            load.submit("batch", lane="batch")
        start = time.time()
        load.at_rate("critical", 2, 40)
        seen = load.counts(start, start + 40)
        calls = seen[200] + seen[429]
        waits = load.waits("critical")
        return {"critical_ms": waits, "use": seen[200] / (20 * 40), "limited_share": seen[429] / calls}


def models() -> dict[str, Any]:
    """A slow model must not hold up a fast one."""
    limits = json.dumps({"slow*": {"rpm": 120}, "fast*": {"rpm": 1200}})
    with Rig("--limits", limits, "--latency", LATENCY) as rig:
        load = Load(rig, EZAI_LIMITS=limits)
        start = time.time()
        for _ in range(300):
            load.submit("slow", lane="batch", model="slow-model")
            load.submit("fast", lane="batch", model="fast-model")
        end = time.monotonic() + 60
        while time.monotonic() < end:
            time.sleep(0.5)
            done = [c["arrived"] for c in rig.calls() if c["status"] == 200 and str(c["user_id"]).startswith("fast")]
            if len(done) == 300:
                break
        return {"fast_done": len(done), "ratio_to_ideal": round((max(done) - start) / (300 / 20), 3)}


def outage() -> dict[str, Any]:
    """Overloaded, then away, then back."""
    with Rig("--rpm", "1200", "--latency", LATENCY) as rig:
        load = Load(rig, EZAI_RPM="1200")
        for _ in range(1500):
            load.submit("batch", lane="batch")
        time.sleep(5)
        rig.control(outage=True)
        down = time.time()
        time.sleep(30)
        rig.control(outage=False)
        up = time.time()
        time.sleep(10)
        during = load.counts(down + 2, up)
        after = load.counts(up + 5, up + 10)
        return {
            "calls_per_s_per_worker_meanwhile": round(sum(during.values()) / (up - down - 2) / 2, 2),
            "rate_5_to_10_s_after": round(after[200] / (5 * 20), 3),
        }


CASES: dict[str, Callable[[], dict[str, Any]]] = {
    case.__name__: case for case in (bursts, tokens, shares, hidden, headers, models, outage)
}


def main() -> None:
    """Print a line for each case, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help=", ".join(CASES))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    unknown = set(options.cases) - set(CASES)
    if unknown:
        sys.exit(f"no such case: {', '.join(unknown)}; there are {', '.join(CASES)}")
    results = {}
    for name in options.cases or CASES:
        results[name] = CASES[name]()
        if not options.json:
            print(f"{name}: {json.dumps(results[name])}", flush=True)
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
