"""One process with an `asyncio.PriorityQueue`, a semaphore for its slots and a rate limiter; no broker.

https://docs.python.org/3/library/asyncio-queue.html#priority-queue. What the limit allows goes to the most urgent job, and
429s go back into the queue, as often as most clients try by default. There is no faster way to hand a job over; what is
queued is gone with the process, and a second process would neither share the queue nor know of the first one's calls.

``python -m contenders.asyncio_queue`` is the process; it is sent one JSON object a line.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
import sys
import time
from typing import Any

import anthropic
from contenders.contender import RATE, Contender, async_client, retry_after

PRIORITY = {"critical": 0, "normal": 1, "batch": 2}
#: Attempts of one job; tenacity's and most SDKs' users stop at about so many.
ATTEMPTS = 5


class Work:
    """The queue, the slots and the limiter."""

    def __init__(self, reserved: int, shared: int, rate: float) -> None:
        """Prepare; `rate` 0 is no limit."""
        self.all, self.urgent = asyncio.PriorityQueue[Any](), asyncio.PriorityQueue[Any]()
        self.slots, self.reserved = asyncio.Semaphore(shared), asyncio.Semaphore(reserved)
        self.order, self.calls = itertools.count(), set[asyncio.Task[None]]()
        self.rate, self.level, self.filled = rate, rate, time.monotonic()
        self.loops = [asyncio.create_task(self.dispatch(self.all, self.slots))]
        self.loops += [asyncio.create_task(self.dispatch(self.urgent, self.reserved))]

    def put(self, lane: str, params: Any, attempt: int = 1) -> None:
        """Queue a job, for a reserved slot if one is free."""
        queue = self.urgent if lane == "critical" and not self.reserved.locked() else self.all
        queue.put_nowait((PRIORITY[lane], next(self.order), lane, params, attempt))

    async def dispatch(self, queue: asyncio.PriorityQueue[Any], slots: asyncio.Semaphore) -> None:
        """Give each free slot, once the limit allows a call, the job that is the most urgent by then."""
        while True:
            await slots.acquire()
            job = await queue.get()
            while wait := self.wait(job[0]):
                queue.put_nowait(job)
                await asyncio.sleep(wait)
                job = queue.get_nowait()
            call = asyncio.create_task(self.call(*job[2:]))
            self.calls.add(call)
            call.add_done_callback(lambda done: (self.calls.discard(done), slots.release()))

    def wait(self, priority: int) -> float:
        """Take a permit from a bucket that holds what a second brings, or return the seconds until there may be one."""
        if not self.rate:
            return 0.0
        now = time.monotonic()
        self.level = min(self.rate, self.level + (now - self.filled) * self.rate)
        self.filled = now
        needed = 1 if not priority or self.urgent.empty() else 2  # the reserved slots' job goes first
        if self.level >= needed:
            self.level -= 1
            return 0.0
        return (needed - self.level) / self.rate

    async def call(self, lane: str, params: Any, attempt: int) -> None:
        """Call; after a 429 the job waits and is queued again."""
        if params is None:
            return
        try:
            await async_client().messages.create(**params)
        except anthropic.RateLimitError as error:
            if attempt == ATTEMPTS:
                print("gave up", flush=True)
                return
            asyncio.get_running_loop().call_later(retry_after(error), self.put, lane, params, attempt + 1)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take jobs from a connection; a line without a lane asks how many are left."""
        while line := await reader.readline():
            if lane := (told := json.loads(line)).get("lane"):
                self.put(lane, told["params"])
            else:
                writer.write(b"%d\n" % (self.all.qsize() + self.urgent.qsize() + len(self.calls)))


async def main() -> None:
    """Run."""
    work = Work(int(sys.argv[1]), int(sys.argv[2]), float(os.environ.get("LIMIT", "0")))
    server = await asyncio.start_server(work.serve, "127.0.0.1", 0)
    print("ready", server.sockets[0].getsockname()[1], "on", flush=True)
    await server.serve_forever()


class AsyncioQueue(Contender):
    """The process."""

    title, docs, failure, alone = "asyncio.PriorityQueue", "docs.python.org, asyncio-queue", "gave up", True

    def start(self, reserved: int, shared: int, *, limited: bool) -> None:
        """Start it and connect."""
        env = {"LIMIT": str(RATE)} if limited else {}
        self.rig.process("shared", " on\n", "contenders.asyncio_queue", str(reserved), str(shared), **env)
        self.rig.wait_until_ready()
        port = int(self.rig.log("shared").read_text().split()[1])
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = connection.makefile("rw")

    def submit(self, lane: str, params: dict[str, Any] | None) -> None:
        """Send a line."""
        self._file.write(json.dumps({"lane": lane, "params": params}) + "\n")
        self._file.flush()

    def submit_nothing(self, jobs: int) -> None:
        """Send lines."""
        for _ in range(jobs):
            self.submit("batch", None)

    def left(self) -> int:
        """Ask."""
        self._file.write("{}\n")
        self._file.flush()
        return int(self._file.readline())


if __name__ == "__main__":
    asyncio.run(main())
