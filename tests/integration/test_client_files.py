"""What a web process keeps open when its result backend goes and comes back."""

import gc
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import redis
from kit.server import Server

from celery_app.app import create_app

#: Times that the server is killed; each left at least one socket behind for each thread.
RESTARTS = 6


def files() -> int:
    """Return how many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(sys.platform != "linux", reason="it counts what is in /proc")
@pytest.mark.parametrize("at_broker", [True, False])
def test_who_subscribes_to_results_leaves_no_connection_to_the_garbage_collector(at_broker, tmp_path, monkeypatch):
    """Whoever has subscribed to results has as many files open, however often the server goes and comes back."""
    with Server(tmp_path) as server:
        monkeypatch.setenv("CELERY_BROKER_URL", server.url)
        backend = create_app().lanes_results.make(None if at_broker else server.url)
        gc.collect()
        gc.disable()
        counts = []
        try:
            for n in range(RESTARTS + 1):
                server.kill()
                with suppress(redis.ConnectionError, RuntimeError):
                    backend.result_consumer.consume_from(f"away-{n}")
                server.start()
                backend.get(f"no-{n}")
                backend.result_consumer.consume_from(f"job-{n}")
                backend.result_consumer.drain_events(timeout=0.01)
                counts.append(files())
        finally:
            gc.enable()
    assert counts[-1] - counts[0] < RESTARTS, counts
