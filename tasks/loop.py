"""The event loop of a process: all its calls run there, and the thread of a slot waits for its own.

A call on a loop can be ended: by its total deadline, which no read or write can prolong, and from another thread.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from tasks.cancelling import running

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tasks.cancelling import Running

T = TypeVar("T")

#: What is said of a call that nobody waits for any more.
HUNG_UP = "the call was ended before its time"

#: Seconds that the calls of a process which is over have to end in.
CLOSING_SECONDS = 1.0


class OutOfTime(Exception):
    """The call has taken all of its time."""


class HungUp(Exception):
    """The call was ended before its time."""


class CallLoop:
    """A loop in a thread of its own.

    Attributes:
        pid: of its process.
        loop: itself.
        clients: that use it, by key and URL; they are closed with it.
    """

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.loop = asyncio.new_event_loop()
        self.clients: dict[tuple[str, str], Any] = {}
        self._thread = threading.Thread(target=self.loop.run_forever, name="lanes-calls", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End what runs on the loop, close its clients, and then the loop."""
        if self.pid != os.getpid():
            return  # its thread is in the process that this one was forked from
        asyncio.run_coroutine_threadsafe(self._end_all(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(CLOSING_SECONDS)
        if not self._thread.is_alive():
            self.loop.close()

    async def _end_all(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        closing = [asyncio.ensure_future(client.close()) for client in self.clients.values()]
        if others or closing:
            await asyncio.wait([*others, *closing], timeout=CLOSING_SECONDS)


_starting = threading.Lock()
_loop: CallLoop | None = None


def call_loop() -> CallLoop:
    """Return the loop of this process; one that was forked has a loop of its own."""
    global _loop  # noqa: PLW0603 - there is one for all threads
    with _starting:
        if _loop is None or _loop.pid != os.getpid():
            _loop = CallLoop()
        return _loop


@atexit.register
def close_loop() -> None:
    """Close the loop of this process, if it has one; the next call would start another."""
    global _loop
    with _starting:
        loop, _loop = _loop, None
    if loop is not None:
        loop.close()


def run(call: Callable[[], Awaitable[T]], seconds: float) -> T:
    """Make a call on the loop, and wait for what comes of it; where this thread's calls may be cancelled, so may it.

    Args:
        call: begins it, on the loop.
        seconds: that it may take.

    Raises:
        OutOfTime: it took them.
        HungUp: it was cancelled.
        Exception: what the call raises.
    """
    return _Waiting(call, seconds, running()).result(call_loop().loop)


class _Waiting(Generic[T]):
    """A thread that waits for its call: a lock is all that has to wake it."""

    def __init__(self, call: Callable[[], Awaitable[T]], seconds: float, of: Running | None) -> None:
        self._call, self._seconds, self._of = call, seconds, of
        self._over = threading.Lock()
        self._over.acquire()
        self._task: asyncio.Task[None] | None = None
        self._answers: list[T] = []
        self._error: BaseException | None = None

    def result(self, loop: asyncio.AbstractEventLoop) -> T:
        loop.call_soon_threadsafe(self._begin)  # the loop does it in this thread's context
        try:
            self._over.acquire()
        except BaseException:
            loop.call_soon_threadsafe(self._cancel)  # a signal: nobody waits for the call any more
            raise
        if self._error is None:
            return self._answers.pop()
        try:
            raise self._error
        finally:
            self._error = None  # it knows this frame

    def _begin(self) -> None:
        self._task = asyncio.ensure_future(self._run())

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            self._answers.append(await _bounded(self._call, self._seconds, self._of))
        except BaseException as exc:  # noqa: BLE001 - whatever it is, it is the waiting thread's
            self._error = exc
        finally:
            self._over.release()


async def _bounded(call: Callable[[], Awaitable[T]], seconds: float, of: Running | None) -> T:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(seconds) as bound:
            if of is not None and not of.use(partial(loop.call_soon_threadsafe, _current().cancel)):
                raise HungUp(HUNG_UP)
            return await call()
    except TimeoutError:
        if not bound.expired():
            raise
        raise OutOfTime from None
    except asyncio.CancelledError:
        raise HungUp(HUNG_UP) from None


def _current() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("a call runs in a task")
    return task
