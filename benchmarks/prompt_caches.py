"""What the care for prompt caches brings, by the simulated API's own meter: the same jobs with it and without.

200 jobs of 20,000 tokens are queued, and as many slots wait. The API reads 20,000 tokens a second and takes 2 s
besides; it keeps the beginning of a prompt from the first byte of its answer on. Times are from the lane's opening to
the end of the last call, by the API's log. The loads:

one prefix   all begin alike; 2,000,000 input tokens a minute
five         they begin in five ways, in turns; 2,000,000 as well
none alike   each begins in a way of its own, marked all the same; 24,000,000
unmarked     none is marked; 24,000,000
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from typing import Any

from rig import Rig

JOBS, SLOTS = 200, 200

#: Characters of the beginning: the simulated API takes four for a token.
CHARACTERS = 80_000

#: Of the API: seconds until the first byte, and tokens of a prompt that it reads in a second on top.
API = ("--latency", "2", "--prompt-tokens-per-second", "20000")

DEADLINE = 300.0  # s for everything to be answered

#: How many beginnings there are, whether they are marked, and how many input tokens a minute the API takes.
LOADS = {
    "one prefix": (1, True, 2_000_000),
    "five": (5, True, 2_000_000),
    "none alike": (JOBS, True, 24_000_000),
    "unmarked": (JOBS, False, 24_000_000),
}


def request(number: int, prefixes: int, *, marked: bool) -> dict[str, Any]:
    """Return the parameters of one call."""
    which = f"Guidelines, edition {number % prefixes}. "
    system = {"type": "text", "text": which + "word " * ((CHARACTERS - len(which)) // 5)}
    if marked:
        system["cache_control"] = {"type": "ephemeral"}  # type: ignore[assignment]
    messages = [{"role": "user", "content": f"Classify document {number} by these guidelines."}]
    return {"model": "bench-model", "max_tokens": 50, "system": [system], "messages": messages}


def measure(load: str, *, care: bool) -> dict[str, Any]:
    """Run a load once."""
    prefixes, marked, itpm = LOADS[load]
    with Rig(*API, "--itpm", str(itpm)) as rig:
        switch = {"LANES_BATCH_PROMPT_CACHES": "on" if care else "off"}
        rig.worker("batch", "-Q", "batch", "-c", str(SLOTS), EZAI_ITPM=str(itpm), **switch)
        os.environ.update({**rig.environment, **switch})
        from celery_app import controls, create_app
        from celery_app.client import Client

        app = create_app()
        jobs = (request(number, prefixes, marked=marked) for number in range(JOBS))
        controls.pause(app, "batch")
        Client(app).submit_many(jobs, lane="batch")
        start = time.time()
        controls.resume(app, "batch")
        end = time.monotonic() + DEADLINE
        while rig.summary()["statuses"].get("200", 0) < JOBS and time.monotonic() < end:
            time.sleep(0.1)
        calls, bill = rig.calls(), rig.bill()
    answered = [call for call in calls if call["status"] == 200]
    return {
        "input_tokens": bill["input_tokens"] + bill["cache_creation_input_tokens"],
        "cache_read": bill["cache_read_input_tokens"],
        "dollars": round(bill["dollars"], 4),
        "seconds": round(max(call["ended"] for call in answered) - start, 2),
        "unanswered": JOBS - len(answered),
        "limited": sum(call["status"] == 429 for call in calls),
    }


def compared(load: str, runs: int) -> dict[str, Any]:
    """Run a load with and without, in turns; return the medians, and the ratios of these."""
    found: dict[str, list[dict[str, Any]]] = {"without": [], "with": []}
    for _ in range(runs):
        for name, each in found.items():
            each.append(measure(load, care=name == "with"))
    medians = {
        name: {field: statistics.median(run[field] for run in each) for field in each[0]}
        for name, each in found.items()
    }
    ratios = {
        field: round(medians["with"][field] / medians["without"][field], 3)
        for field in ("input_tokens", "dollars", "seconds")
    }
    return {**medians, "ratios": ratios}


def main() -> None:
    """Print lines for each load, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", choices=LOADS)
    parser.add_argument("--runs", type=int, default=1)
    options = parser.parse_args()
    results = {load: compared(load, options.runs) for load in LOADS if options.only in {None, load}}
    if options.json:
        print(json.dumps(results))
        return
    for load, result in results.items():
        for name, figures in result.items():
            print(f"{load}, {name}: {figures}")


if __name__ == "__main__":
    main()
