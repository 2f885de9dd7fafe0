"""A thread that looks on: at what was sent, what was called, what has ended, and at the size of every process."""

from __future__ import annotations

import json
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from redis import RedisError
from soaking.ledger import Ledger
from soaking.slopes import Samples

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soaking.ground import Ground

#: Seconds between two looks, results that are read at once, and seconds that a call's end may reach the log late.
EVERY, AT_ONCE = 1.0, 500

#: Where Celery's Redis backend keeps a result.
RESULT = "celery-task-meta-{}"


class Watch:
    """A context manager; what its thread raises `check` raises."""

    def __init__(self, ground: Ground) -> None:
        self.ledger, self.samples = Ledger(), Samples()
        self._ground, self._position, self._seen_until = ground, 0, 0.0
        self._over, self._failed = threading.Event(), None
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def __str__(self) -> str:
        return f"{len(self.ledger.jobs)} jobs, {self.ledger.due()} of them under way"

    def check(self) -> None:
        """Raise what has ended the thread, or a process that nobody ended."""
        if self._failed is not None:
            raise self._failed
        for name in ("critical", "veteran"):
            self._ground.workers[name].check()

    def look_again(self) -> None:
        """End the thread, take what came last, and ask for every result once more: no end may change."""
        self._over.set()
        self._thread.join()
        self.check()
        self._listen()
        self._take_calls()
        ids = [job.id for job in self.ledger.jobs.values() if job.id is not None and job.told != "refused"]
        self._read_results(ids)

    def _run(self) -> None:
        try:
            while not self._over.wait(EVERY):
                self._look()
        except Exception as exc:  # noqa: BLE001 - told by the main thread
            self._failed = exc

    def _look(self) -> None:
        self._listen()
        # A stopped API answers later; a broker that is away has nothing to say.
        with suppress(OSError):
            self._take_calls()
        with suppress(RedisError):
            self._read_results(self.ledger.open())
            self._count_keys()
        now = time.monotonic()
        for name, pid in self._ground.processes().items():
            self.samples.look_at(name, pid, now)

    def _listen(self) -> None:
        self._position, lines = self._ground.lines(self._position)
        for line in lines:
            self.ledger.hear(line)

    def _take_calls(self) -> None:
        calls = self._ground.calls(self._seen_until)
        self._seen_until = max([self._seen_until, *(call["ended"] for call in calls)])
        self.ledger.witness(calls)

    def _read_results(self, ids: Sequence[str]) -> None:
        with self._ground.pair.client() as client:
            for start in range(0, len(ids), AT_ONCE):
                some = ids[start : start + AT_ONCE]
                found: Any = client.mget([RESULT.format(task_id) for task_id in some])
                for task_id, text in zip(some, found, strict=True):
                    if text is not None:
                        meta = json.loads(text)
                        error = meta["result"] if isinstance(meta["result"], dict) else {}
                        self.ledger.learn(task_id, meta["status"], error.get("exc_type"))

    def _count_keys(self) -> None:
        with self._ground.pair.client() as client:
            found: Any = client.info("keyspace")
        if "db0" in found:
            kept = found["db0"]["keys"] - found["db0"]["expires"]
            self.samples.add("broker", "keys kept for good", time.monotonic(), kept)
