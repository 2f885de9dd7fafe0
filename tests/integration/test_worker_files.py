"""What a worker keeps open when its broker goes and comes back."""

import sys
from pathlib import Path

import pytest
from kit.broker import Broker
from kit.server import Server

#: Times that the broker is killed; each left two sockets behind.
RESTARTS = 4

#: Files that may be open or not at the moment: connections of a pool.
MOMENTARY = 4

IN_TIME_S = 60.0


@pytest.mark.skipif(sys.platform != "linux", reason="it counts what is in /proc")
def test_a_broker_that_comes_back_again_and_again_leaves_no_file_open(valkey, tmp_path):
    """A worker has as many open after the last restart as after the first."""
    with Server(tmp_path) as server, Broker(tmp_path, server.url, valkey.url(11)) as broker:
        worker = broker.worker(slots=2)
        counts = []
        for n in range(RESTARTS + 1):
            server.kill()
            server.start()
            broker.send("kit.job", f"job-{n}", ignore_result=True)
            broker.event_log.wait_for("end", [f"job-{n}"], IN_TIME_S)
            counts.append(len(list(Path(f"/proc/{worker.process.pid}/fd").iterdir())))
    assert counts[-1] - counts[0] < MOMENTARY, counts
