"""Batch: one Message Batch, from its creation to its results."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from demo.simulator.faults import SimulatedError, refusal
from demo.simulator.prompts import legible, prompt_of
from demo.simulator.replies import reply

if TYPE_CHECKING:
    from demo.simulator.simulator import Simulator

Json = dict[str, Any]

LIFETIME_S = 24 * 3600.0  # "which is 24 hours after creation"
RESULTS = ("succeeded", "errored", "canceled", "expired")
CHUNK = 10  # requests answered at a stretch: about a millisecond, for which all streams wait
SETTLED_AT_ONCE = 1_000  # requests without an answer, likewise
SHORTEST_NAP_S = 0.005  # of a batch that has a pace; what is due sooner is answered at once


class Batch:
    """A batch of one key. Its requests are answered in no order; all results are known at once, when it has ended."""

    def __init__(self, simulator: Simulator, key: str, number: int, requests: dict[str, str]) -> None:
        """Take the requests, as JSON by custom ids, and answer them; `number` counts the batches of the server."""
        self.id, self.key, self.size = f"msgbatch_sim{number:020}", key, len(requests)
        self.lines: list[bytes] = []  # of the results
        self.ended_at: datetime | None = None
        self._simulator, self._waiting = simulator, requests
        self._counts: Counter[str] = Counter()
        self._cancel_initiated_at: datetime | None = None
        behaviour = simulator.behaviour
        lifetime = behaviour.lasts(LIFETIME_S)
        self._created_at = _now()
        self._expires_at = self._created_at + timedelta(seconds=lifetime)
        order = random.sample(list(requests), len(requests))
        if number in {behaviour.expiring_batch, behaviour.endless_batch}:
            del order[len(order) // 2 :]
        self._limit = asyncio.timeout(None if number == behaviour.endless_batch else lifetime)
        self._task = asyncio.create_task(self._process(order))

    @property
    def waiting(self) -> int:
        """Requests that have no result yet."""
        return len(self._waiting)

    def told(self, host: str) -> Json:
        """Give what the API tells of it; results are not counted before its end."""
        status = "ended" if self.ended_at else "canceling" if self._cancel_initiated_at else "in_progress"
        counts = {kind: self._counts[kind] if self.ended_at else 0 for kind in RESULTS}
        return {
            "id": self.id,
            "type": "message_batch",
            "processing_status": status,
            "request_counts": {"processing": 0 if self.ended_at else self.size, **counts},
            "created_at": self._created_at.isoformat(),
            "expires_at": self._expires_at.isoformat(),
            "ended_at": self.ended_at and self.ended_at.isoformat(),
            "cancel_initiated_at": self._cancel_initiated_at and self._cancel_initiated_at.isoformat(),
            "archived_at": None,
            "results_url": f"{host}/v1/messages/batches/{self.id}/results" if self.ended_at else None,
        }

    def cancel(self) -> None:
        """Answer no more, from a while after now; raise 400 if it has ended."""
        if self.ended_at:
            raise SimulatedError(400, f"Batch {self.id} cannot be canceled: it has ended")
        if self._cancel_initiated_at is None:
            self._cancel_initiated_at = _now()
            behaviour = self._simulator.behaviour
            self._limit.reschedule(asyncio.get_running_loop().time() + behaviour.lasts(behaviour.cancel_latency))

    async def _process(self, order: list[str]) -> None:
        try:
            async with self._limit:
                await self._answer_all(order)
        except TimeoutError:
            kind = "canceled" if self._cancel_initiated_at else "expired"
            for number, custom_id in enumerate(tuple(self._waiting)):
                if number % SETTLED_AT_ONCE == 0:
                    await asyncio.sleep(0)
                self._settle(custom_id, kind, "")
        self.ended_at = _now()

    async def _answer_all(self, order: list[str]) -> None:
        """Answer these, each when it is due; wait for the end of time if others are left."""
        loop, behaviour = asyncio.get_running_loop(), self._simulator.behaviour
        await asyncio.sleep(behaviour.lasts(behaviour.batch_latency))
        begun = loop.time()
        for number, custom_id in enumerate(order):
            behaviour = self._simulator.behaviour
            early = (
                begun + behaviour.lasts(number / behaviour.batch_pace) - loop.time() if behaviour.batch_pace else 0.0
            )
            if early > SHORTEST_NAP_S or number % CHUNK == 0:
                await asyncio.sleep(max(0.0, early))
            try:
                message = self._answer(custom_id)
            except SimulatedError as error:
                self._settle(custom_id, "errored", f',"error":{error.body(f"req_{self.id}_{custom_id}").decode()}')
            else:
                if message is not None:
                    self._settle(custom_id, "succeeded", f',"message":{message}')
        if self._waiting:
            await loop.create_future()

    def _answer(self, custom_id: str) -> str | None:
        """Give the message as JSON, None if the request hangs, or raise what is wrong with it."""
        simulator, params = self._simulator, json.loads(self._waiting[custom_id])["params"]
        with legible():
            asked = prompt_of(params)
        if asked.stream:
            raise SimulatedError(400, "stream: not supported in a batch")
        unlucky = random.random() < simulator.behaviour.batch_errors
        fault = asked.fault or ("server_error" if unlucky else None)
        if fault == "hang":
            return None
        if fault == "server_error":
            raise SimulatedError(500, "Simulated 500")
        if fault and (refused := refusal(fault, params, self.key, streaming=False)):
            raise SimulatedError(refused.status_code, refused.message, code=refused.code)
        cache, now = simulator.caches[self.key], time.monotonic()
        with legible():
            measured = cache.measure(params, now)
        cache.remember(measured.kept, now)
        answer = reply(asked, measured.usage, simulator.behaviour.output_tokens, tier="batch")
        simulator.charge(self.key, asked.model, measured.usage, len(answer.pieces), kind="batch")
        simulator.bill.answered(measured.digest, custom_id)
        return answer.whole().tail.decode()

    def _settle(self, custom_id: str, kind: str, rest: str) -> None:
        del self._waiting[custom_id]
        self._counts[kind] += 1
        self.lines.append(f'{{"custom_id":"{custom_id}","result":{{"type":"{kind}"{rest}}}}}\n'.encode())


def _now() -> datetime:
    return datetime.now(UTC)
