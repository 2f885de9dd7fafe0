"""What tests run the scheduler's scripts on: the empty broker, and lanes there whose clock stands still."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from budget_kit.clock import ClockedRedis
from budget_kit.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis import Redis

    from tests.conftest import Valkey


@pytest.fixture
def client(valkey: Valkey, broker_url: str) -> Iterator[Redis]:
    """A client of the empty broker."""
    assert broker_url
    with valkey.client() as client:
        yield client


@pytest.fixture
def scheduler(client: Redis) -> Scheduler:
    """Lanes whose clock stands still."""
    return Scheduler(ClockedRedis(client))
