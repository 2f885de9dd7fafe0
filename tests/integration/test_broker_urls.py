"""Every form of a broker's or a result backend's URL that the documentation shows, as a user types it."""

import asyncio
import json
import os
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from celery import Celery
from kit.broker_forms import (
    DEADLINE_S,
    MASTER,
    PASSWORD,
    SECRETS,
    SENTINEL_PASSWORD,
    certificate,
    data_server,
    sentinels,
    tls_front,
)
from kit.client_rig import params, text_of
from kit.server import Server
from kit.waiting import in_time, wait_until
from kit.worker import WorkerProcess, worker
from kombu import Connection
from redis import Redis, exceptions

from celery_app import create_app, install
from celery_app.client import Client
from celery_app.client.async_connection import connected
from celery_app.connections.redis_client import broker_errors, redis_client
from celery_app.errors import BrokerUnreachable, InvalidSettings
from celery_app.results.backend import backend_of
from demo.ports import LOCALHOST, free_port
from demo.simulator import Behaviour, running
from tests.conftest import close

# Celery's own call, on the client's side: a cancelled job's state.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

#: Seconds that one job may take.
IN_TIME_S = 30.0

#: Name of a form -> URL and the number of its database. {pw} is the password as a URL needs it.
FORMS = {
    "redis": ("redis://:{pw}@127.0.0.1:{data}/0", 0),
    "redis with user and database": ("redis://default:{pw}@127.0.0.1:{data}/3", 3),
    "rediss": ("rediss://:{pw}@127.0.0.1:{tls}/4?ssl_ca_certs={ca}", 4),
    "rediss, required": ("rediss://:{pw}@127.0.0.1:{tls}/4?ssl_cert_reqs=required&ssl_ca_certs={ca}", 4),
    "rediss, unverified": ("rediss://:{pw}@127.0.0.1:{tls}/4?ssl_cert_reqs=none", 4),
    "valkey": ("valkey://:{pw}@127.0.0.1:{data}/5", 5),
    "valkeys": ("valkeys://:{pw}@127.0.0.1:{tls}/6?ssl_ca_certs={ca}", 6),
    "socket": ("redis+socket://:{pw}@{folder}/v.sock?virtual_host=7", 7),
    "valkey on a socket": ("valkey+socket://:{pw}@{folder}/v.sock?virtual_host=7", 7),
    "sentinel": ("sentinel://:{pw}@127.0.0.1:{s1}/8?master_name=lanes", 8),
    "sentinels, all said twice": (
        "sentinel://:{pw}@127.0.0.1:{s1}/9?master_name=lanes;sentinel://:{pw}@127.0.0.1:{s2}/9?master_name=lanes",
        9,
    ),
    "sentinels, all said by the last": (
        "sentinel://127.0.0.1:{s1};sentinel://:{pw}@127.0.0.1:{s2}/10?master_name=lanes",
        10,
    ),
    "sentinels, all said by the first": (
        "sentinel://:{pw}@127.0.0.1:{s1}/11?master_name=lanes;sentinel://127.0.0.1:{s2}",
        11,
    ),
    "sentinels, one scheme": ("sentinel://:{pw}@127.0.0.1:{s1};127.0.0.1:{s2}/12?master_name=lanes", 12),
    "sentinels, the first is dead": ("sentinel://127.0.0.1:1;sentinel://:{pw}@127.0.0.1:{s2}/13?master_name=lanes", 13),
}

#: Those with a worker of their own in `make test`; all of them have one in `make proof`.
TYPICAL = ("rediss", "valkey", "sentinels, all said by the last")

ALL = [pytest.param(name, marks=() if name in TYPICAL else pytest.mark.slow) for name in FORMS]

#: A project that reads its configuration from the environment.
PROJECT = """\
import json
import os

from celery import Celery

from celery_app import install

app = Celery("proj", set_as_current=False)
app.conf.update(json.loads(os.environ["PROJ_CONF"]))
install(app)


@app.task
def double(number):
    return 2 * number
"""


@dataclass(frozen=True, slots=True)
class Servers:
    """All servers.

    Attributes:
        folder: with the certificate and the socket.
        words: what is filled into the forms.
        guarded: the port of a Sentinel that asks for a password.
        api: root of the simulated API.
    """

    folder: Path
    words: dict[str, Any]
    guarded: int
    api: str

    def url(self, form: str) -> str:
        """Return a URL of this form."""
        return FORMS[form][0].format(**self.words)


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """A server with a password, TLS, a socket and Sentinels before it, and the simulated API."""
    folder = tmp_path_factory.mktemp("urls")
    with ExitStack() as stack:
        data = stack.enter_context(data_server(folder, f'unixsocket "{folder}/v.sock"'))
        cert, key = certificate(folder)
        tls = stack.enter_context(tls_front(data.port, cert, key))
        first, second = stack.enter_context(sentinels(folder, data))
        (guarded,) = stack.enter_context(sentinels(folder, data, 1, own=SENTINEL_PASSWORD))
        words = {"pw": quote(PASSWORD, safe=""), "data": data.port, "tls": tls, "ca": cert, "folder": folder}
        words |= {"s1": first.port, "s2": second.port}
        api = stack.enter_context(running())
        yield Servers(folder, words, guarded.port, api.url)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """An environment in which nothing is configured."""
    for name in [name for name in os.environ if name.startswith(("CELERY_", "EZAI_", "LANES_"))]:
        monkeypatch.delenv(name)


@contextmanager
def application(monkeypatch: pytest.MonkeyPatch, url: str, backend: str | None = None) -> Iterator[Any]:
    """Give the application of a process that has these variables."""
    monkeypatch.setenv("CELERY_BROKER_URL", url)
    if backend:
        monkeypatch.setenv("CELERY_RESULT_BACKEND", backend)
    app = create_app()
    try:
        yield app
    finally:
        close(app)


def project(**conf: Any) -> Any:
    """Return an application of a project's own."""
    app = Celery("proj", set_as_current=False)
    app.conf.update(conf)
    install(app)
    return app


def databases(app: Any) -> list[int]:
    """Return the databases that an application's connections of each kind have come to."""

    async def database() -> int:
        async with connected(app) as client:
            return int((await client.client_info())["db"])

    with app.connection() as own, app.amqp.lane_connection() as lanes:
        clients = [channel.default_channel.client for channel in (own, lanes)]
        clients += [redis_client(app), backend_of(app).client]
        return [int(client.client_info()["db"]) for client in clients] + [asyncio.run(database())]


@pytest.mark.parametrize("explicit", [False, True], ids=["results at the broker", "a result backend"])
@pytest.mark.parametrize("form", FORMS)
def test_all_connections_come_to_its_database(form, *, explicit, servers, monkeypatch):
    """What publishes, consumes, asks and fetches results talks to the database that the URL names."""
    url = servers.url(form)
    with application(monkeypatch, url, url if explicit else None) as app:
        assert databases(app) == [FORMS[form][1]] * 5


@pytest.mark.parametrize("form", [form for form in FORMS if not form.endswith("dead")])
def test_a_project_may_configure_it(form, servers):
    """The same holds for `broker_url` and `result_backend` of a project's own configuration, also in a list."""
    url = servers.url(form)
    # Celery itself refuses such a result backend that does not say what is verified.
    own = {} if url.startswith("rediss") and "ssl_cert_reqs" not in url else {"result_backend": url}
    for broker in (url, url.split(";")):
        app = project(broker_url=broker, **own)
        assert databases(app) == [FORMS[form][1]] * 5
        close(app)


@pytest.mark.parametrize("explicit", [False, True], ids=["results at the broker", "a result backend"])
def test_sentinel_may_be_told_by_options(*, explicit, servers):
    """A master and a Sentinel's password in `broker_transport_options` hold for results, too."""
    url = f"sentinel://:{servers.words['pw']}@127.0.0.1:{servers.guarded}/2"
    options = {"master_name": MASTER, "sentinel_kwargs": {"password": SENTINEL_PASSWORD}}
    backend = {"result_backend": url} if explicit else {}
    app = project(broker_url=url, broker_transport_options=options, **backend)
    assert databases(app) == [2] * 5
    close(app)


def test_the_url_of_the_environment_names_the_master(servers, monkeypatch):
    """The master in a URL goes before the one in `broker_transport_options`."""
    monkeypatch.setenv("CELERY_BROKER_URL", servers.url("sentinel"))
    app = project(broker_transport_options={"master_name": "another"})
    assert databases(app) == [8] * 5
    close(app)


def test_a_failover_of_kombu_keeps_the_database(servers):
    """When kombu turns to the next Sentinel after an error, database, password and user stay."""
    app = project(broker_url=servers.url("sentinels, all said by the first"))
    with app.connection() as connection:
        connection.maybe_switch_next()
        assert connection.port == servers.words["s2"]
        assert connection.default_channel.client.client_info()["db"] == 11
    close(app)


def test_whose_certificate_is_verified(servers, monkeypatch):
    """``rediss://`` alone is verified in the lanes; a project's own connections are as kombu has them."""
    url = f"rediss://:{servers.words['pw']}@127.0.0.1:{servers.words['tls']}/0"
    app = project(broker_url=url)
    with app.connection() as own, Connection(url) as stock:
        assert own.ssl == stock.ssl
        assert own.default_channel.client.ping()
    with app.amqp.lane_connection() as lanes, pytest.raises(exceptions.ConnectionError, match="VERIFY_FAILED"):
        lanes.channel().client.ping()
    close(app)
    with application(monkeypatch, url) as ours, ours.connection() as connection:
        assert connection.ssl == {"ssl_cert_reqs": ssl.CERT_REQUIRED}


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sentinel://localhost:26379/0", r"master by name, as in sentinel://localhost:26379/0\?master_name=mymaster"),
        ("sentinel://a/0?master_name=", "master by name"),
        ("sentinel://a/1;sentinel://b/2?master_name=m", "the same database"),
        ("sentinel://a/0?master=m", "master_name"),
        ("redis://a/0?master_name=m", "may only be ssl_"),
        ("valkey://a/mydb", "must be a number"),
        ("redis-cluster://a/0", "Redis or Valkey"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(url, words, monkeypatch):
    """A URL that nobody can connect by is refused with the reason, before anything is sent."""
    with application(monkeypatch, url) as app:
        for attempt in (app.amqp.lane_connection, lambda: Client(app).submit(**params())):
            with pytest.raises(InvalidSettings, match=words):
                attempt()
        monkeypatch.setenv("CELERY_BROKER_URL", "redis://127.0.0.1:1/0")


def test_dead_and_mute_sentinels_are_an_error_in_time(monkeypatch):
    """Whoever submits hears within 3 s that no Sentinel answers, and not a password."""
    import socket

    with socket.create_server((LOCALHOST, 0)) as mute:
        port = mute.getsockname()[1]
        url = f"sentinel://:s3cret@127.0.0.1:1;127.0.0.1:{port};127.0.0.1:{port}/0?master_name=lanes"
        with application(monkeypatch, url) as app:
            begun = time.monotonic()
            with pytest.raises(BrokerUnreachable, match="No master found for 'lanes'\\)") as caught:
                Client(app).submit(**params())
            assert time.monotonic() - begun < in_time(3)
            assert not any(secret in str(caught.value) for secret in SECRETS)
            with pytest.raises(BrokerUnreachable), broker_errors(app):
                redis_client(app).ping()


# End to end ------------------------------------------------------------------------------------------------------


def celery(folder: Path, *arguments: str, app: str = "celery_app", **env: str) -> subprocess.Popen[str]:
    """Start a ``celery`` command with these variables."""
    command = [sys.executable, "-m", "celery", "-A", app, *arguments]
    return subprocess.Popen(
        command, cwd=folder, env={**os.environ, **env}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def said(process: subprocess.Popen[str]) -> str:
    """Wait for a command to end well, and return what it has said; no password may be in it."""
    output, _ = process.communicate(timeout=2 * IN_TIME_S)
    assert process.returncode == 0, output
    assert not any(secret in output for secret in SECRETS), output
    return output


def run_everything(app: Any) -> None:
    """Do all that a web app does."""
    client = Client(app)
    task = app.tasks["tasks.create_message"]
    assert task.apply_async(kwargs=params(), queue="batch").get(timeout=IN_TIME_S)["type"] == "message"
    text = client.ask(**params()).content[0].text
    assert asyncio.run(client.aask(**params())).content[0].text == text
    assert text_of(client.stream(**params())) == text

    async def streamed() -> str:
        return text_of([event async for event in client.astream(**params())])

    assert asyncio.run(streamed()) == text
    assert [result.error for result in client.submit_many([params()] * 3).results(IN_TIME_S)] == [None] * 3
    slow = client.submit(lane="normal", **params(fault="hang"))
    assert client.cancel(slow)
    wait_until(lambda: slow.state == "REVOKED", "the cancelled job is revoked", IN_TIME_S)


def run_commands(folder: Path, app: str, **env: str) -> None:
    """Ask the running worker what operators ask, all at once."""
    commands = [
        ("inspect", "ping"),
        ("inspect", "conf"),
        ("inspect", "stats"),
        ("report",),
        ("lanes", "status", "--json"),
    ]
    ping, conf, stats, _, status = map(said, [celery(folder, *words, app=app, **env) for words in commands])
    assert "pong" in ping
    assert "Traceback" not in conf
    assert "error" not in conf
    assert "1 node online" in stats
    assert json.loads(status[status.index("{") :])["queue_depth"] == 0


@contextmanager
def flower(folder: Path, app: str, **env: str) -> Iterator[str]:
    """Run Flower, and give the URL of its pages."""
    port, log = free_port(), folder / "flower.log"
    options = ["--address=127.0.0.1", f"--port={port}", "--conf=/dev/null"]
    command = [sys.executable, "-m", "celery", "-A", app, "flower", *options]
    env = {**os.environ, **env, "FLOWER_UNAUTHENTICATED_API": "true"}
    url = f"http://127.0.0.1:{port}"
    with (
        log.open("wb") as output,
        subprocess.Popen(command, cwd=folder, env=env, stdout=output, stderr=output) as process,
    ):
        try:
            wait_until(lambda: is_there(f"{url}/healthcheck"), "Flower answers", 2 * IN_TIME_S)
            yield url
        finally:
            process.kill()  # its handler of SIGTERM raises, and may do so where Python ignores it
    assert not any(secret in log.read_text() for secret in SECRETS)


def is_there(url: str) -> bool:
    """Whether a page is there."""
    try:
        return bool(page(url))
    except OSError:
        return False


def page(url: str) -> str:
    """Return a page of Flower's."""
    with urllib.request.urlopen(url, timeout=DEADLINE_S) as answer:  # noqa: S310 - our own URL
        return str(answer.read().decode())


def look_at_flower(folder: Path, app: str, **env: str) -> None:
    """Flower knows the worker and the lengths of its queues, and shows no password."""
    with flower(folder, app, **env) as url:
        wait_until(lambda: "conf" in page(f"{url}/api/workers?refresh=1"), "Flower knows the settings", IN_TIME_S)
        workers, queues = page(f"{url}/api/workers"), page(f"{url}/broker")
        assert not any(secret in text for secret in SECRETS for text in (workers, queues))
        assert all(name in queues for name in ("critical", "normal", "batch"))


def purge(app: Any, folder: Path, name: str, **env: str) -> None:
    """Submit two jobs that nobody takes, and have them deleted."""
    for lane in ("normal", "batch"):
        Client(app).submit(lane, **params())
    assert "Purged 2 messages" in said(celery(folder, "purge", "-f", "-Q", "normal,batch", app=name, **env))


def no_password_in(started: WorkerProcess) -> None:
    """A worker's banner and its lines show no password."""
    output = started.output()
    assert "transport:" in output
    assert not any(secret in output for secret in SECRETS), output
    assert "ERROR" not in output


@pytest.mark.parametrize("form", ALL)
def test_end_to_end(form, servers, tmp_path, monkeypatch):
    """With the URL in CELERY_BROKER_URL, worker, client, commands and Flower do their work."""
    url = servers.url(form)
    env = {"CELERY_BROKER_URL": url, "EZAI_API_KEY": "sk-test", "EZAI_BASE_URL": servers.api}
    with application(monkeypatch, url) as app:
        redis_client(app).flushdb()
        purge(app, tmp_path, "celery_app", **env)
        with worker(tmp_path, "-Q", "critical,normal,batch", "-c", "4", **env) as started:
            run_everything(app)
            run_commands(tmp_path, "celery_app", **env)
            if not form.endswith("dead"):  # Flower's page of queues asks the first Sentinel only
                look_at_flower(tmp_path, "celery_app", **env)
            no_password_in(started)


@pytest.mark.parametrize(
    "form",
    [
        "sentinels, all said by the first",
        pytest.param("valkeys", marks=pytest.mark.slow),
        pytest.param("socket", marks=pytest.mark.slow),
    ],
)
def test_end_to_end_in_a_project(form, servers, tmp_path):
    """With the URL in a project's own configuration, for jobs and results, the same holds; and its own tasks run."""
    conf = {"broker_url": servers.url(form), "result_backend": servers.url("redis with user and database")}
    do_all_in_a_project(conf, servers, tmp_path)


@pytest.mark.slow
def test_end_to_end_with_a_sentinel_that_asks_for_a_password(servers, tmp_path):
    """With master and Sentinel's password in `broker_transport_options` and no result backend, the same holds."""
    options = {"master_name": MASTER, "sentinel_kwargs": {"password": SENTINEL_PASSWORD}}
    url = f"sentinel://:{servers.words['pw']}@127.0.0.1:{servers.guarded}/2"
    do_all_in_a_project({"broker_url": url, "broker_transport_options": options}, servers, tmp_path)


def do_all_in_a_project(conf: dict[str, Any], servers: Servers, folder: Path) -> None:
    """Run a project with this configuration: worker, client, commands and Flower."""
    (folder / "proj.py").write_text(PROJECT)
    env = {"PROJ_CONF": json.dumps(conf), "EZAI_API_KEY": "sk-test", "EZAI_BASE_URL": servers.api}
    app = project(**conf)
    redis_client(app).flushdb()
    purge(app, folder, "proj", **env)
    with worker(folder, "-Q", "critical,normal,batch,celery", "-c", "4", app="proj", **env) as started:
        run_everything(app)
        if "result_backend" in conf:
            assert app.send_task("proj.double", (21,)).get(timeout=IN_TIME_S) == 42
        run_commands(folder, "proj", **env)
        look_at_flower(folder, "proj", **env)
        no_password_in(started)
    close(app)


@contextmanager
def pair(folder: Path) -> Iterator[tuple[Server, Server, str]]:
    """Give a master, its replica, and the URL of two Sentinels that watch them."""
    with ExitStack() as stack:
        master = stack.enter_context(data_server(folder))
        replica = stack.enter_context(data_server(folder, f"replicaof {LOCALHOST} {master.port}"))
        with closing(replica.client(PASSWORD)) as client:
            wait_until(lambda: client.info("replication")["master_link_status"] == "up", "it follows", DEADLINE_S)
        first, second = stack.enter_context(sentinels(folder, master))
        with closing(first.client()) as client:
            wait_until(lambda: bool(client.sentinel_slaves(MASTER)), "Sentinel knows the replica", DEADLINE_S)
            wait_until(lambda: bool(client.sentinel_sentinels(MASTER)), "Sentinel knows the other one", DEADLINE_S)
        password = quote(PASSWORD, safe="")
        yield (
            master,
            replica,
            f"sentinel://{LOCALHOST}:{first.port};sentinel://:{password}@{LOCALHOST}:{second.port}/0?master_name={MASTER}",
        )


@pytest.mark.slow
@pytest.mark.parametrize("how", ["asked", "killed"])
def test_a_master_fails_over(how, tmp_path, monkeypatch):
    """When Sentinel names another master in the middle of work, the jobs go on and each result reaches."""
    behaviour = Behaviour(latency=0.5)
    with pair(tmp_path) as (master, replica, url), application(monkeypatch, url) as app, running(behaviour) as api:
        env = {"CELERY_BROKER_URL": url, "EZAI_API_KEY": "sk-test", "EZAI_BASE_URL": api.url}
        with worker(tmp_path, "-Q", "critical,normal,batch", "-c", "2", **env) as started:
            client = Client(app)
            results = [client.submit("normal", **params(f"question {n}")) for n in range(6)]
            with closing(master.client(PASSWORD)) as redis:
                assert redis.wait(1, round(DEADLINE_S * 1000)) == 1
            fail_over(how, master, url)
            with closing(replica.client(PASSWORD)) as redis:
                wait_until(lambda: redis.info("replication")["role"] == "master", "it is the master", DEADLINE_S)
            for result in results:
                wait_until(lambda result=result: succeeded(app, result.id), "each result reaches", 3 * IN_TIME_S)
            assert client.ask(**params()).content[0].text
            assert "Error on" not in started.output()  # as in "Error on restarting Control"


def fail_over(how: str, master: Server, url: str) -> None:
    """Have Sentinel name the other server as the master."""
    if how == "killed":
        master.kill()
        return
    with closing(Redis.from_url(url.partition(";")[0].replace("sentinel://", "redis://"))) as sentinel:
        assert sentinel.execute_command("SENTINEL FAILOVER", MASTER) in {b"OK", True}


def succeeded(app: Any, task_id: str) -> bool:
    """Whether a result is there; the broker may be away for a while."""
    try:
        with broker_errors(app):
            return app.AsyncResult(task_id, backend=backend_of(app)).successful()
    except BrokerUnreachable:
        return False
