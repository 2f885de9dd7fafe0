"""A server that answers, and takes no writes: what a web app is told of it."""

import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from kit.client_rig import params, text_of, web_app
from kit.server import Server
from kit.waiting import wait_until
from kit.worker import worker
from redis import ConnectionError as NoConnection, Redis, ResponseError

from celery_app.client import Client
from celery_app.errors import BrokerTakesNoWrites
from demo.simulator import Behaviour, running
from tasks.streaming import _may_have_begun
from tests.conftest import close

# Celery's own call, on the client's side: a cancelled job's state.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")


@contextmanager
def configured(redis: Redis, name: str, value: Any, well: Any) -> Iterator[None]:
    """Have a setting for a while."""
    redis.config_set(name, value)
    yield
    redis.config_set(name, well)


@contextmanager
def a_replica(redis: Redis, _: Server) -> Iterator[None]:
    """Have the server be a replica of nobody that is there."""
    redis.replicaof("127.0.0.1", 9)
    yield
    redis.replicaof("NO", "ONE")


@contextmanager
def full_disk(redis: Redis, server: Server) -> Iterator[None]:
    """Have the server's journal not grow any more."""
    assert server.process
    _, hard = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (1, hard))
    wait_until(lambda: refuses(redis), "the server notices")
    yield
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
    wait_until(lambda: not refuses(redis), "the server notices that there is room again")


def refuses(redis: Redis) -> bool:
    """Say whether a write is refused."""
    try:
        redis.set("probe", 1)
    except ResponseError:
        return True
    return False


WHY: dict[str, Callable[[Redis, Server], Any]] = {
    "maxmemory": lambda redis, _: configured(redis, "maxmemory", 1, 0),
    "NOREPLICAS": lambda redis, _: configured(redis, "min-replicas-to-write", 1, 0),
    "read only": a_replica,
    "MISCONF": full_disk,
}

CALLS: dict[str, Callable[[Client, str], Any]] = {
    "ask": lambda client, _: client.ask(**params()),
    "submit": lambda client, _: client.submit(**params()),
    "submit_many": lambda client, _: client.submit_many([params()] * 3),
    "stream": lambda client, _: client.stream(**params()),
    "cancel": lambda client, queued: client.cancel(queued),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server of this file's own. One that syncs its journal at once ends when it cannot; so it may wait."""
    with Server(tmp_path_factory.mktemp("server"), "appendfsync everysec") as server:
        yield server


@pytest.mark.parametrize("why", WHY)
def test_every_call_says_that_the_broker_takes_no_writes_and_why(server, why):
    """It is a `BrokerUnreachable`, as of a broker that is away; once the server writes again, all goes on."""
    if why == "MISCONF" and sys.platform != "linux":
        pytest.skip("the limit of another process' files is Linux' own")
    app = web_app(server.url)
    client = Client(app)
    with server.client() as redis:
        queued = client.submit(**params()).id
        with WHY[why](redis, server):
            for call in CALLS.values():
                with pytest.raises(BrokerTakesNoWrites, match=why):
                    call(client, queued)
        assert client.cancel(queued)
    close(app)


def test_a_stream_that_meets_a_full_server_is_whole_once_there_is_room(server, tmp_path):
    """Its events are kept and written then; they were lost, and their reader was told that the stream had expired."""
    app = web_app(server.url)
    env = {"CELERY_BROKER_URL": server.url, "EZAI_API_KEY": "sk-test"}
    behaviour = Behaviour(tokens_per_second=20, output_tokens=20)
    with running(behaviour) as api, worker(tmp_path, EZAI_BASE_URL=api.url, **env), server.client() as redis:
        events = Client(app).stream(**params())
        read = [next(events)]
        with configured(redis, "maxmemory", 1, 0):
            wait_until(lambda: api.summary()["statuses"].get("200"), "the answer is over")
        read += events
        assert text_of(read) == events.message["content"][0]["text"]
        assert "restart" not in {event["type"] for event in read}
    close(app)


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of another process' files is Linux' own")
def test_a_channel_of_a_server_whose_disk_is_full_is_one_to_open_again(server):
    """Its PING is refused, too, which is no error of the connection to Celery: a worker that starts just then ended."""
    app = web_app(server.url)
    with server.client() as redis, app.connection_for_read() as connection:
        connection.channel()  # the one that a connection opens by itself
        with full_disk(redis, server), pytest.raises(NoConnection, match="MISCONF"):
            connection.channel()
        connection.channel().close()
    close(app)


def test_a_stream_that_begins_while_redis_is_away_may_have_begun_before(dead_port):
    """A job that comes again is no failure because nobody can say what was written of it."""
    app = web_app(f"redis://127.0.0.1:{dead_port}/0")
    assert _may_have_begun(SimpleNamespace(app=app), "a stream")
    close(app)
