"""BatchDesk: all Message Batches of one simulated API: what is taken in, found again, listed and thrown away."""

from __future__ import annotations

import math
import time
from collections import Counter
from itertools import count
from typing import TYPE_CHECKING, Any

from demo.simulator.batch import Batch
from demo.simulator.batch_requests import read_requests
from demo.simulator.faults import SimulatedError, rate_limited
from demo.simulator.prompts import legible

if TYPE_CHECKING:
    from demo.simulator.simulator import Simulator

Json = dict[str, Any]

MAX_BYTES = 256 * 1024 * 1024  # "100,000 Message requests or 256 MB in size" (platform.claude.com, batch processing)
MAX_LISTED = 1_000  # batches of a page
QUEUE_FULL_S = 10  # when to come again, as nobody knows when a batch will have ended


class BatchDesk:
    """The batches of all keys, each of which sees its own."""

    def __init__(self, simulator: Simulator) -> None:
        """Start without any."""
        self.calls: Counter[str] = Counter()  # by what was done and the status: "create 200"
        self._simulator, self._numbers = simulator, count(1)
        self._batches: dict[str, Batch] = {}  # in order of creation

    def look(self) -> Json:
        """Give the calls and all batches, the oldest first: what the API tells, and `waiting`, which it does not."""
        batches = [{**batch.told(""), "waiting": batch.waiting} for batch in self._batches.values()]
        return {"calls": dict(self.calls), "batches": batches}

    def admit(self, key: str) -> None:
        """Count a call of a key, or raise 429; calls for messages count elsewhere."""
        account = self._simulator.batch_account(key)
        if denial := account.admit(0, time.monotonic()):
            raise rate_limited(denial.limit, max(1, math.ceil(denial.wait)))

    async def create(self, key: str, body: bytes) -> Batch:
        """Take a batch in, or raise 400, 413, or 429 when the key has too much waiting."""
        if len(body) > MAX_BYTES:
            raise SimulatedError(413, "Request exceeds the maximum size")
        with legible():
            requests = await read_requests(body)
        queue = self._simulator.limits_of_all.batch_queue
        if queue and len(requests) + sum(each.waiting for each in self._of(key)) > queue:
            raise rate_limited("requests waiting in batches", QUEUE_FULL_S)
        batch = Batch(self._simulator, key, next(self._numbers), requests)
        self._batches[batch.id] = batch
        return batch

    def find(self, key: str, batch_id: str) -> Batch:
        """Give a batch of a key, or raise 404."""
        batch = self._batches.get(batch_id)
        if batch is None or batch.key != key:
            raise SimulatedError(404, f"Batch {batch_id} not found")
        return batch

    def page(self, key: str, limit: int, before: str | None, after: str | None) -> tuple[list[Batch], bool]:
        """Give a page of a key's batches, the newest first, next to one of them; and whether there are more behind."""
        if not 1 <= limit <= MAX_LISTED:
            raise SimulatedError(400, f"limit: has to be from 1 to {MAX_LISTED}")
        batches = self._of(key)[::-1]
        if before is not None:
            newer = batches[: batches.index(self.find(key, before))]
            return newer[-limit:], len(newer) > limit
        older = batches if after is None else batches[batches.index(self.find(key, after)) + 1 :]
        return older[:limit], len(older) > limit

    def delete(self, batch: Batch) -> None:
        """Forget a batch, or raise 400 if it goes on."""
        if not batch.ended_at:
            raise SimulatedError(400, f"Batch {batch.id} cannot be deleted: it has not ended")
        del self._batches[batch.id]

    def _of(self, key: str) -> list[Batch]:
        return [batch for batch in self._batches.values() if batch.key == key]
