"""One process with an `asyncio.PriorityQueue`, slots, some of them for critical alone, and a rate limiter; no broker.

https://docs.python.org/3/library/asyncio-queue.html#priority-queue. What the limit allows goes to the most urgent job,
and 429s go back into the queue. What is queued is gone with the process.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import sys
import time
from typing import Any

from contenders.contender import RATE, TRANSIENT, Contender, async_client, retry_after

#: Of lanes; and how often one job is tried: most retry libraries' users stop at about so many.
PRIORITY, ATTEMPTS = {"critical": 0, "normal": 1, "batch": 2}, 5


class Work:
    """The queue, the slots and the limiter."""

    def __init__(self, reserved: int, shared: int, rate: float) -> None:
        """Prepare; `rate` 0 is no limit."""
        self.queue, self.order, self.changed = asyncio.PriorityQueue[Any](), itertools.count(), asyncio.Event()
        self.reserved, self.slots, self.calls = reserved, reserved + shared, set[asyncio.Task[None]]()
        self.rate, self.level, self.filled = rate, rate, time.monotonic()
        self.timer = asyncio.get_running_loop().call_later(0, self.changed.set)

    def put(self, lane: str, params: Any, attempt: int = 1) -> None:
        """Queue a job."""
        self.queue.put_nowait((PRIORITY[lane], next(self.order), lane, params, attempt))
        self.changed.set()

    async def dispatch(self) -> None:
        """Start the most urgent job whenever a slot is free and the limit allows a call."""
        while await self.changed.wait():
            self.changed.clear()
            while not self.queue.empty() and self.is_free(job := self.queue.get_nowait()):
                self.calls.add(call := asyncio.create_task(self.call(*job[2:])))
                call.add_done_callback(lambda done: (self.calls.discard(done), self.changed.set()))

    def is_free(self, job: Any) -> bool:
        """Take a permit from a bucket that holds what a second brings; or put the job back, and be called again."""
        now, slots = time.monotonic(), self.slots - (self.reserved if job[0] else 0)
        self.level, self.filled = min(self.rate, self.level + (now - self.filled) * self.rate), now
        has_slot, has_permit = len(self.calls) < slots, not self.rate or self.level >= 1
        if has_slot and has_permit:
            self.level -= 1
            return True
        self.queue.put_nowait(job)
        if has_slot:
            self.timer.cancel()
            self.timer = asyncio.get_running_loop().call_later((1 - self.level) / self.rate, self.changed.set)
        return False

    async def call(self, lane: str, params: Any, attempt: int) -> None:
        """Call; after a 429 or 500 the job waits and is queued again."""
        try:
            if params:
                await async_client().messages.create(**params)
        except TRANSIENT as error:
            if attempt < ATTEMPTS:
                asyncio.get_running_loop().call_later(retry_after(error), self.put, lane, params, attempt + 1)
            else:
                print("gave up", flush=True)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take jobs from a connection; a line without a lane asks how many are left."""
        while line := await reader.readline():
            if lane := (told := json.loads(line)).get("lane"):
                self.put(lane, told["params"])
            else:
                writer.write(b"%d\n" % (self.queue.qsize() + len(self.calls)))


async def main() -> None:
    """Run."""
    work = Work(*map(int, sys.argv[1:]))
    server = await asyncio.start_server(work.serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await work.dispatch()


class AsyncioQueue(Contender):
    """The process."""

    failure, alone = "gave up", True

    def start(self, reserved: int, shared: int, *, limited: bool) -> None:
        """Start it and connect."""
        self.rig.process("shared", "\n", "contenders.asyncio_queue", *map(str, (reserved, shared, RATE * limited)))
        self.rig.wait_until_ready()
        connection = socket.create_connection(("127.0.0.1", int(self.rig.log("shared").read_text())))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = connection.makefile("rw")

    def submit(self, lane: str, params: dict[str, Any] | None, tenant: str = "") -> None:
        """Send a line."""
        self._file.write(json.dumps({"lane": lane, "params": params}) + "\n")
        self._file.flush()

    def submit_nothing(self, jobs: int) -> None:
        """Send lines."""
        for _ in range(jobs):
            self.submit("batch", None)

    def left(self) -> int:
        """Ask by a line without a lane."""
        self.submit("", None)
        return int(self._file.readline())


if __name__ == "__main__":
    asyncio.run(main())
