"""What tests run the scheduler's scripts on: the empty broker, and lanes there whose clock stands still."""

import pytest
from kit.clock import ClockedRedis
from kit.scheduler import Scheduler


@pytest.fixture
def client(valkey, broker_url):
    """A client of the empty broker."""
    assert broker_url
    with valkey.client() as client:
        yield client


@pytest.fixture
def scheduler(client):
    """Lanes whose clock stands still."""
    return Scheduler(ClockedRedis(client))
