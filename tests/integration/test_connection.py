import os
import socket
import subprocess
import sys
import time
from typing import Any

import pytest
from kit.broker_forms import PASSWORD
from kit.server import Server

from celery_app import create_app
from celery_app.client import Client
from celery_app.connections.redis_client import broker_errors, key_prefix, redis_client
from celery_app.errors import BrokerRefused, BrokerUnreachable
from celery_app.jobs.publishing import REPLY_TIMEOUT
from celery_app.settings import Settings

# Servers on this machine answer well within this.
DEADLINE_S = 10.0


def app_at(url: str, **transport_options: Any) -> Any:
    """Return an application with lanes on a broker, with transport options of the project's own."""
    app = create_app(Settings(broker_url=url, result_backend=url))
    app.conf.broker_transport_options = transport_options
    return app


def test_it_is_made_once(lanes_app):
    """One application has one client in a process, and it connects only when it is used."""
    client = redis_client(lanes_app)
    assert redis_client(lanes_app) is client
    assert not client.connection_pool._available_connections


def test_more_threads_than_kombu_allows(lanes_app):
    """Fifty connections at once are no error, as they would be in kombu's own pool."""
    pool = redis_client(lanes_app).connection_pool
    connections = [pool.get_connection() for _ in range(50)]
    for connection in connections:
        pool.release(connection)
    pool.disconnect()


def test_the_prefix_is_told_not_applied(valkey):
    """The global key prefix of kombu is for the caller to put before his keys; the client leaves keys alone."""
    with app_at(valkey.url(3), global_keyprefix="shop:") as app:
        assert key_prefix(app) == "shop:"
        client = redis_client(app)
        client.set(f"{key_prefix(app)}key", 1)
        assert client.delete("shop:key") == 1
        client.close()


def test_a_fork_does_not_share_its_parents_connection(valkey):
    """Parent and child that use the client at the same time each get their own answers."""
    program = f"""
import os
from celery_app import create_app
from celery_app.connections.redis_client import redis_client
from celery_app.settings import Settings

client = redis_client(create_app(Settings(broker_url={valkey.url(3)!r}, result_backend={valkey.url(3)!r})))
parent = client.client_id()
child = os.fork()
for _ in range(200):
    assert client.echo(str(os.getpid())) == str(os.getpid()).encode()
if not child:
    os._exit(client.client_id() == parent)
assert client.client_id() == parent
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    command = [sys.executable, "-W", "ignore", "-c", program]
    subprocess.run(command, check=True, timeout=DEADLINE_S, env={"PATH": os.environ["PATH"]})


def test_a_dead_broker_is_named_without_its_password(dead_port):
    """Whoever reads the error learns where nothing answers and why, but not the password."""
    app = app_at(f"redis://someone:secret@127.0.0.1:{dead_port}/0")
    with app, pytest.raises(BrokerUnreachable) as caught, broker_errors(app):
        redis_client(app).ping()
    assert f"redis://someone:**@127.0.0.1:{dead_port}/0" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "refused" in str(caught.value)


@pytest.mark.parametrize("given", ["wrong:password@", "someone:password@", ""])
def test_a_wrong_password_is_called_by_its_name(tmp_path, given):
    """The server is there, so to start one is no help; a wrong user and no password are the same."""
    with Server(tmp_path, durable=False, password=PASSWORD) as running:
        app = app_at(f"redis://{given}127.0.0.1:{running.port}/0")
        with app:
            with pytest.raises(BrokerRefused, match="check user and password") as caught, broker_errors(app):
                redis_client(app).ping()
            with pytest.raises(BrokerRefused):
                Client(app).submit(model="m", max_tokens=1, messages=[{"role": "user", "content": "x"}])
            redis_client(app).close()
    assert "start Redis" not in str(caught.value)


def test_a_broker_that_never_answers_is_an_error_in_time():
    """A server that takes connections and says nothing costs the reply timeout, not forever."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        app = app_at(f"redis://127.0.0.1:{mute.getsockname()[1]}/0")
        begun = time.monotonic()
        with app, pytest.raises(BrokerUnreachable), broker_errors(app):
            redis_client(app).ping()
        assert REPLY_TIMEOUT <= time.monotonic() - begun < 2 * REPLY_TIMEOUT
