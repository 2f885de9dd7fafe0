"""What 10,000 documents cost of which half may wait a day, by the simulated API's own meter.

The half that may wait is shipped to Message Batches; the other half makes calls. Meanwhile one of two workers is killed
every 20 s, a tenth of all calls to the batches API fail, one batch expires, and one never ends: it is promoted. The
day is shorter here: the API's clocks run 2,000 times faster. It prints what was paid for the half that may wait, as a
part of what calls would have cost, and who was answered how often.

A call that a killed worker had made is made again: its answer was paid for, and nobody has it. These are counted apart.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from kit.bench import main
from pydantic import SecretStr
from rig import Rig

from celery_app import LANES, create_app
from celery_app.client import Client
from celery_app.lanes import BATCH
from celery_app.settings import Settings

if TYPE_CHECKING:
    import argparse
    import subprocess

    from celery_app.client.batch import Batch

#: Parts in which the documents come, and seconds between two: a day brings them one after the other.
PARTS, PART_EVERY = 60, 4.0

#: Seconds between two kills, and those that a killed worker is away.
KILL_EVERY = 20.0

#: Seconds after which a batch is promoted that has not ended; a day of the API's.
PROMOTE_AFTER = 45.0

#: Seconds for all.
WITHIN = 900.0

_API = {"batch_latency": 2_000, "time_scale": 2_000, "batch_failures": 0.1, "expiring_batch": 3, "endless_batch": 5}


class Killer:
    """Two workers, of which one after the other is killed and replaced."""

    def __init__(self, rig: Rig) -> None:
        self._rig, self._number = rig, 0
        self._workers = [self._worker(), self._worker()]
        self._over = threading.Event()
        self.kills = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        """Kill none any more."""
        self._over.set()
        self._thread.join()

    def _worker(self) -> subprocess.Popen[bytes]:
        self._number += 1
        env = {"LANES_BATCH_MESSAGE_BATCHES": "on", "LANES_BATCH_PROMOTE_AFTER": str(PROMOTE_AFTER)}
        keys = {"EZAI_API_KEY_BATCH": "sk-bill-batch", "EZAI_API_KEY_NORMAL": "sk-bill-normal"}
        words = ("-Q", "critical,normal,batch", "-c", "16")
        return self._rig.worker(f"bill{self._number}", *words, **env, **keys)

    def _run(self) -> None:
        while not self._over.wait(KILL_EVERY):
            victim = self._workers.pop(0)
            victim.kill()
            victim.wait()
            self.kills += 1
            self._workers.append(self._worker())


def bill(arguments: argparse.Namespace) -> dict[str, Any]:
    """Have the documents read."""
    with Rig() as rig:
        rig.control(**_API)
        os.environ.update(rig.environment)
        client = Client(_app(rig.broker_url))
        killer = Killer(rig)
        try:
            begun = time.monotonic()
            batches = _submit(client, arguments.documents)
            _wait(batches)
            took = time.monotonic() - begun
        finally:
            killer.stop()
        return {**_figures(rig, batches, arguments.documents), "kills": killer.kills, "seconds": round(took, 1)}


def _app(url: str) -> Any:
    lanes = tuple(
        dataclasses.replace(lane, message_batches=("*",)) if lane.name == BATCH.name else lane for lane in LANES
    )
    keys = {lane.name: SecretStr("unused") for lane in LANES}
    return create_app(Settings(broker_url=url, result_backend=url, api_keys=keys, lanes=lanes))


def _submit(client: Client, documents: int) -> list[Batch]:
    batches = []
    for part in range(PARTS):
        numbers = range(part * documents // PARTS, (part + 1) * documents // PARTS)
        for lane, own in (("batch", 0), ("normal", 1)):
            some = [_document(number) for number in numbers if number % 2 == own]
            batches.append(client.submit_many(some, lane=lane, wait=WITHIN))  # type: ignore[arg-type]
        time.sleep(PART_EVERY)
    return batches


def _document(number: int) -> dict[str, Any]:
    text = f"Classify document {number}: " + "it is of some length. " * 20
    return {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": text}]}


def _wait(batches: list[Batch]) -> None:
    end = time.monotonic() + WITHIN
    while not all(batch.counts().complete for batch in batches):
        if time.monotonic() > end:
            raise SystemExit(f"not within {WITHIN} s: {[batch.counts() for batch in batches]}")
        time.sleep(1)


def _figures(rig: Rig, batches: list[Batch], documents: int) -> dict[str, Any]:
    paid = rig.ask("GET", "/_bill?answers=1")
    waits = [row for row in paid["rows"] if row["key"] == "atch"]
    dollars, live = (sum(row[name] for row in waits) for name in ("dollars", "dollars_if_live"))
    shipped = sum(row["calls"] for row in waits if row["kind"] == "batch")
    again = paid["answered"]["prompts"]
    desk = rig.ask("GET", "/_batches")
    counts = [batch.counts() for batch in batches]
    return {
        "paid_of_live_for_what_may_wait": round(dollars / live, 3),
        "paid_of_live_for_all": round(paid["dollars"] / paid["dollars_if_live"], 3),
        "shipped": shipped,
        "documents": documents,
        "done": sum(each.done for each in counts),
        "failed": sum(each.failed for each in counts),
        "missing": documents - again["distinct"],
        "answers_in_batches_twice": sum(number > 1 for number in paid["answers"]["custom_ids"].values()),
        "calls_made_again_after_kills": again["answers"] - again["distinct"],
        "batches": len(desk["batches"]),
        "batch_calls": desk["calls"],
    }


def say(figures: dict[str, Any]) -> str:
    """Return it for people."""
    return "\n".join(f"{name.replace('_', ' ')}: {value}" for name, value in figures.items())


if __name__ == "__main__":
    main(__doc__ or "", bill, say, documents=10_000)
