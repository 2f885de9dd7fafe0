"""The thread that looks for cancellations."""

import threading
import time
from typing import Any, cast

import redis

from tasks.cancelling import Running, Watch

IN_TIME_S = 30.0


class Closing:
    """A client whose first command fails as redis-py's do when their pool is closed while they connect."""

    def __init__(self) -> None:
        self.commands = 0

    def mget(self, marks: list[str]) -> list[Any]:
        """Fail once; find every mark afterwards."""
        self.commands += 1
        if self.commands == 1:
            raise AttributeError("'NoneType' object has no attribute 'readline'")
        return [b"1"] * len(marks)


def test_a_look_that_fails_in_any_way_does_not_end_the_looking():
    """A cancellation is seen although an earlier look failed with an error that is not Redis' own."""
    client = Closing()
    call = Running(["mark"])
    deadline = time.monotonic() + IN_TIME_S

    with Watch(cast("redis.Redis", client)).over(call):
        while not call.cancelled and time.monotonic() < deadline:
            threading.Event().wait(0.01)

    assert call.cancelled
    assert client.commands > 1
