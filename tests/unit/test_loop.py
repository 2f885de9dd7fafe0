"""The event loop of a process: what a call on it may take, and how it ends."""

import asyncio
import os
import threading
import warnings
from contextvars import ContextVar

import pytest

from tasks.cancelling import Running, Watch
from tasks.loop import HungUp, OutOfTime, call_loop, close_loop, run

#: Seconds after which something hangs.
IN_TIME_S = 30.0

said: ContextVar[str] = ContextVar("said", default="nothing")


async def forever() -> None:
    """Wait for what never comes."""
    await asyncio.Event().wait()


async def thread() -> str:
    """Return the name of the thread that runs this."""
    return threading.current_thread().name


def test_calls_share_one_thread():
    """Whoever makes a call waits in his own thread; all calls run in one."""
    assert {run(thread, IN_TIME_S) for _ in range(3)} == {"lanes-calls"}


def test_a_call_knows_the_context_of_its_slot():
    """A span that a worker has opened is the parent of the call's, and what a task sets for its calls is seen."""
    said.set("hello")

    async def hear() -> str:
        await asyncio.sleep(0)
        return said.get()

    assert run(hear, IN_TIME_S) == "hello"


def test_a_call_takes_no_longer_than_it_may():
    """Its deadline is a total: no step of it begins anew."""
    with pytest.raises(OutOfTime):
        run(forever, 0.05)


def test_a_timeout_of_its_own_is_a_calls_own():
    """Only the deadline is a reason to say that the time is over."""

    async def impatient() -> None:
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        run(impatient, IN_TIME_S)


def test_a_call_can_be_cancelled_from_another_thread():
    """It ends, having cleaned up, before its slot goes on."""
    call, cleaned = Running([]), []

    async def tidy() -> None:
        threading.Timer(0.05, call.cancel).start()
        try:
            await forever()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    with Watch(None).over(call), pytest.raises(HungUp):  # type: ignore[arg-type]
        run(tidy, IN_TIME_S)
    assert cleaned == [True]


def test_a_call_that_was_cancelled_before_does_not_begin():
    """Nothing is sent that nobody wants."""
    call = Running([])
    call.cancel()

    with Watch(None).over(call), pytest.raises(HungUp):  # type: ignore[arg-type]
        run(lambda: pytest.fail("it began"), IN_TIME_S)


def test_a_cancellation_after_the_end_is_none():
    """Whatever the loop does by then."""
    call = Running([])
    with Watch(None).over(call):  # type: ignore[arg-type]
        run(thread, IN_TIME_S)
    close_loop()
    call.cancel()
    assert call.cancelled


def test_closing_ends_what_runs():
    """A process that is over waits for no call, and a later one starts anew."""
    begun, ended = threading.Event(), []

    async def hang() -> None:
        begun.set()
        await forever()

    def make() -> None:
        with pytest.raises(HungUp):
            run(hang, IN_TIME_S)
        ended.append(True)

    slot = threading.Thread(target=make)
    slot.start()
    assert begun.wait(IN_TIME_S)
    close_loop()
    slot.join(IN_TIME_S)

    assert ended == [True]
    assert run(thread, IN_TIME_S) == "lanes-calls"


def test_a_forked_process_has_a_loop_of_its_own():
    """The parent's thread is not there."""
    before = call_loop()
    with warnings.catch_warnings(action="ignore"):  # of threads, from Python 3.12 on: they are the point
        pid = os.fork()
    if pid == 0:  # what fails here must not run on into the other tests
        try:
            own = call_loop() is not before and run(thread, IN_TIME_S) == "lanes-calls"
            os._exit(0 if own else 1)
        finally:
            os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0
    assert call_loop() is before
    close_loop()
