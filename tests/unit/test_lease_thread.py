"""The thread that keeps leases alive."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, cast

from celery_app.broker import lease

if TYPE_CHECKING:
    import pytest
    import redis

PATIENCE = 30.0


class Closing:
    """A client whose first command fails as redis-py's do when their pool is closed while they read."""

    def __init__(self) -> None:
        """Count commands."""
        self.commands = 0

    def execute_command(self, *_: Any) -> list[Any]:
        """Fail once; lose nothing afterwards."""
        self.commands += 1
        if self.commands == 1:
            raise ValueError("I/O operation on closed file.")
        return []


def test_an_extension_that_fails_in_any_way_does_not_end_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases are extended although an earlier extension failed with an error that is not Redis' own."""
    monkeypatch.setattr(lease, "EXTEND_EVERY", 0.0)
    monkeypatch.setattr(lease, "RETRY_EVERY", 0.01)
    client = Closing()
    leases = lease.Leases(cast("redis.Redis", client), "", ":")
    deadline = time.monotonic() + PATIENCE

    leases.hold("tag", "token")
    while client.commands < 2 and time.monotonic() < deadline:
        threading.Event().wait(0.01)

    assert client.commands > 1
    leases.close()
