import signal
import threading
from typing import Any

import pytest
from kit.broker import Broker
from kit.client_rig import params, web_app
from kit.server import Server
from kit.waiting import wait_until
from kit.worker import TO_START, worker as worker_process
from kombu.exceptions import OperationalError
from redis import RedisError

from celery_app.client import Client
from celery_app.metrics.stats import get_queue_stats
from celery_app.results.retry import LAST_TRIES
from demo.simulator import Behaviour, running
from tests.conftest import close

IN_TIME_S = 30.0
SLOTS = 4
#: Without its mend, a worker ended in one of three restarts.
RESTARTS = 6
#: Of 200 jobs with 20 cuts; measured: 0 or 1.
CUT_TWICE = 10


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server of this file's own, whose data survives it."""
    with Server(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(scope="module")
def broker(server, valkey, tmp_path_factory):
    """A broker to be ill-treated; the event log is elsewhere and hears nothing of it."""
    with Broker(tmp_path_factory.mktemp("outages"), server.url, valkey.url(5)) as broker:
        yield broker


@pytest.fixture(scope="module")
def worker(broker):
    """One worker that has to survive it all."""
    return broker.worker(slots=SLOTS)


@pytest.fixture
def usable(broker, worker, request):
    """A name for the test's jobs; afterwards every slot still takes a job, and each of them is acked."""
    name = request.node.name
    yield name
    jobs = [f"{name}-slot-{n}" for n in range(SLOTS)]
    for job in jobs:
        broker.send("kit.gated", job, name, queue="critical", ignore_result=True)
    try:
        broker.event_log.wait_for("start", jobs, IN_TIME_S)
    finally:
        broker.event_log.open_gate(name)
    broker.event_log.wait_for("end", jobs, IN_TIME_S)
    wait_until(lambda: broker.in_flight() == 0, f"nothing is claimed any more; {worker.output()[-2000:]}", IN_TIME_S)
    assert worker.process.poll() is None


def start_gated(broker: Broker, name: str, count: int) -> list[str]:
    """Have jobs under way."""
    jobs = [f"{name}-{n}" for n in range(count)]
    for job in jobs:
        broker.send("kit.gated", job, f"{name}-flight", ignore_result=True)
    broker.event_log.wait_for("start", jobs, IN_TIME_S)
    return jobs


def land(broker: Broker, name: str, jobs: list[str]) -> None:
    """Let the jobs under way finish."""
    broker.event_log.open_gate(f"{name}-flight")
    broker.event_log.wait_for("end", jobs, IN_TIME_S)


def ran_once(broker: Broker, jobs: list[str]) -> bool:
    """Say whether each of the jobs was started once."""
    counts = broker.event_log.counts("start")
    return [counts[job] for job in jobs] == [1] * len(jobs)


def test_the_script_cache_is_flushed(broker, usable):
    """SCRIPT FLUSH while jobs run and while the worker waits: they are acked, and new ones are claimed, each once."""
    jobs = start_gated(broker, usable, 2)
    broker.client.script_flush()
    land(broker, usable, jobs)
    broker.client.script_flush()
    more = [f"{usable}-more-{n}" for n in range(20)]
    for n, job in enumerate(more):
        broker.send("kit.job", job, ignore_result=True)
        if n % 5 == 0:
            broker.client.script_flush()
    broker.event_log.wait_for("end", more, IN_TIME_S)
    assert ran_once(broker, [*jobs, *more])


def test_a_publish_batch_meets_a_flushed_cache(broker, usable):
    """A publish batch to a server that knows no script puts every job into its place."""
    jobs = [f"{usable}-{n}" for n in range(20)]
    with broker.app.producer_or_acquire() as producer, producer.batch():
        for job in jobs:
            broker.send("kit.job", job, producer=producer, ignore_result=True)
        broker.client.script_flush()
    broker.event_log.wait_for("end", jobs, IN_TIME_S)
    assert ran_once(broker, jobs)


@pytest.mark.parametrize("moment", ["running", "finished"])
def test_the_server_is_killed_and_comes_back(broker, server, usable, moment):
    """Jobs under way when the server dies run once, whether they end while it is away or not; queued ones follow."""
    jobs = start_gated(broker, usable, SLOTS)
    queued = [f"{usable}-queued-{n}" for n in range(3)]
    for job in queued:
        broker.send("kit.job", job, ignore_result=True)
    server.kill()
    if moment == "finished":
        land(broker, usable, jobs)
    server.start()
    land(broker, usable, jobs)
    broker.event_log.wait_for("end", queued, IN_TIME_S)
    wait_until(lambda: broker.in_flight() == 0, "all are acked", IN_TIME_S)
    assert ran_once(broker, [*jobs, *queued]), broker.event_log.counts("start")


def test_clients_are_cut_off_again_and_again(broker, usable):
    """With every connection cut twenty times under load each job still runs, hardly any twice; none is left over."""
    jobs = [f"{usable}-{n}" for n in range(200)]
    done = threading.Event()

    def cut() -> None:
        for _ in range(20):
            for kind in ("normal", "pubsub"):
                broker.client.client_kill_filter(_type=kind, skipme=True)
            if done.wait(0.1):
                return

    with broker.app.producer_or_acquire() as producer, producer.batch():
        for job in jobs:
            broker.send("kit.job", job, 0.02, producer=producer, ignore_result=True)
    cutting = threading.Thread(target=cut)
    cutting.start()
    try:
        broker.event_log.wait_for("end", jobs, IN_TIME_S)
    finally:
        done.set()
        cutting.join(IN_TIME_S)
    wait_until(lambda: broker.in_flight() == 0, "all are acked", IN_TIME_S)
    assert broker.scripts().dead() == []
    # A job that has ended but is not acked when its connection is lost may run again: the promise is at least once.
    counts = broker.event_log.counts("start")
    assert len([job for job in jobs if counts[job] != 1]) <= CUT_TWICE


def test_out_of_memory(broker, usable):
    """At maxmemory publishers get an error; what runs is acked, what is queued is done; with room all goes on."""
    jobs = start_gated(broker, usable, 2)
    queued = [f"{usable}-queued-{n}" for n in range(10)]
    for job in queued:
        broker.send("kit.job", job, ignore_result=True)
    broker.client.config_set("maxmemory", 1)
    try:
        with pytest.raises((RedisError, OperationalError), match="maxmemory"):
            broker.send("kit.job", "no-room", ignore_result=True)
        land(broker, usable, jobs)
        broker.event_log.wait_for("end", queued, IN_TIME_S)
        wait_until(lambda: broker.in_flight() == 0, "all are acked", IN_TIME_S)
    finally:
        broker.client.config_set("maxmemory", 0)
    broker.send("kit.job", f"{usable}-after", ignore_result=True)
    broker.event_log.wait_for("end", [f"{usable}-after"], IN_TIME_S)
    assert ran_once(broker, [*jobs, *queued])
    assert "no-room" not in broker.event_log.jobs("start")


def refusals(broker: Broker) -> int:
    """Return how many writes the server has refused as a replica."""
    found: Any = broker.client.info("errorstats")
    return int(found.get("errorstat_READONLY", {"count": 0})["count"])


def test_a_replica_for_a_while(broker, server, usable):
    """While the server is a read-only replica nothing is lost; when it is a master again all is acked and goes on."""
    assert server
    jobs = start_gated(broker, usable, 2)
    queued = [f"{usable}-queued-{n}" for n in range(5)]
    for job in queued:
        broker.send("kit.gated", job, f"{usable}-queued", ignore_result=True)
    broker.event_log.wait_for("start", queued[:2], IN_TIME_S)
    broker.client.config_set("replica-serve-stale-data", "yes")
    broker.client.replicaof("127.0.0.1", 9)
    try:
        with pytest.raises((RedisError, OperationalError), match="read only"):
            broker.send("kit.job", "read-only", ignore_result=True)
        ours = refusals(broker)
        land(broker, usable, jobs)
        wait_until(lambda: refusals(broker) > ours, "the worker meets the refusals", IN_TIME_S)
    finally:
        broker.client.replicaof("NO", "ONE")
    broker.event_log.open_gate(f"{usable}-queued")
    broker.event_log.wait_for("end", queued, IN_TIME_S)
    wait_until(lambda: broker.in_flight() == 0, "all are acked", IN_TIME_S)
    assert ran_once(broker, [*jobs, *queued])


def test_a_long_outage_is_waited_for(broker, server, usable):
    """A worker that starts while the broker is away serves it as soon as it is there."""
    server.kill()
    try:
        with pytest.raises((RedisError, OperationalError)):
            broker.send("kit.job", "away", ignore_result=True)
    finally:
        server.start()
    broker.send("kit.job", usable, ignore_result=True)
    broker.event_log.wait_for("end", [usable], IN_TIME_S)
    assert "away" not in broker.event_log.jobs("start")


@pytest.mark.parametrize("pool", ["threads", pytest.param("prefork", marks=pytest.mark.slow)])
def test_a_result_outlives_a_broker_that_is_away_when_its_job_ends(tmp_path, pool):
    """The worker keeps the answers until they can be stored, and what they have cost; nothing is called twice."""
    with Server(tmp_path) as server, running(Behaviour(latency=2.0)) as api:
        app = web_app(server.url)
        env = {"CELERY_BROKER_URL": server.url, "EZAI_API_KEY": "sk-test", "EZAI_BASE_URL": api.url}
        with worker_process(tmp_path, "-c", "2", "-P", pool, **env) as started:
            results = [Client(app).submit("batch", **params()) for _ in range(2)]
            wait_until(lambda: api.summary()["in_flight"] == 2, "both calls are at the API", IN_TIME_S)
            server.kill()
            wait_until(lambda: api.summary()["statuses"].get("200") == 2, "both are answered", IN_TIME_S)
            started.wait_until_it_says("could not be settled")
            server.start()

            assert [result.get(timeout=IN_TIME_S)["type"] for result in results] == ["message", "message"]
            lane = lambda: get_queue_stats(app)["lanes"]["batch"]  # noqa: E731
            wait_until(lambda: lane()["in_flight"] == 0, "nothing is claimed any more", IN_TIME_S)
            assert api.summary()["total"] == 2
            with server.client() as redis:
                (known,) = redis.keys("lanes:budget:*:model:*")
                assert float(redis.hget(known, "output") or 0) == pytest.approx(Behaviour().output_tokens, rel=0.5)
        close(app)


@pytest.mark.parametrize("how", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGQUIT])
def test_a_backend_that_is_away_stops_no_worker(valkey, tmp_path, how):
    """Only the slots that have something to store wait: others are filled, bad jobs dead-lettered, signals heard."""
    with valkey.client(13) as redis, Server(tmp_path) as backend, running(Behaviour(latency=1.0)) as api:
        redis.flushdb()
        env = {
            "CELERY_BROKER_URL": valkey.url(13),
            "CELERY_RESULT_BACKEND": backend.url,
            "EZAI_API_KEY": "sk-test",
            "EZAI_BASE_URL": api.url,
        }
        app = web_app(valkey.url(13))
        with worker_process(tmp_path, "-c", "2", **env) as started:
            Client(app).submit("batch", **params())
            wait_until(lambda: api.summary()["in_flight"] == 1, "the call is at the API", IN_TIME_S)
            backend.kill()
            app.send_task("nobody.knows", queue="critical", ignore_result=True)
            wait_until(lambda: redis.zcard("lanes:dead") == 1, "the bad job is dead-lettered", IN_TIME_S)
            Client(app).submit("critical", **params())
            wait_until(lambda: api.summary()["statuses"].get("200") == 2, "the other slot works", IN_TIME_S)
            started.process.send_signal(how)
            started.process.wait(IN_TIME_S + LAST_TRIES)
        close(app)


def test_a_worker_outlives_a_server_that_refuses_to_write(valkey, tmp_path):
    """For whatever reason it does, as the worker starts or connects again; once it writes, the worker goes on."""
    with Server(tmp_path) as server, Broker(tmp_path, server.url, valkey.url(11)) as broker, server.client() as control:
        control.config_set("min-replicas-to-write", 1)
        worker = broker.starting("w")
        for name in ("at its start", "connecting again"):
            said = worker.output().count("NOREPLICAS")
            wait_until(lambda said=said: worker.output().count("NOREPLICAS") > said + 1, f"refused {name}", TO_START)
            control.config_set("min-replicas-to-write", 0)
            broker.send("kit.job", name, ignore_result=True)
            broker.event_log.wait_for("end", [name], IN_TIME_S)
            control.config_set("min-replicas-to-write", 1)
            control.execute_command("CLIENT", "KILL", "TYPE", "normal")
        assert worker.process.poll() is None


@pytest.mark.slow
def test_a_worker_outlives_a_broker_that_restarts_again_and_again(valkey, tmp_path):
    """Whatever the worker was doing when the server went, it goes on when the server is back, and so do its jobs."""
    with Server(tmp_path) as server, Broker(tmp_path, server.url, valkey.url(11)) as broker:
        workers = broker.workers("one", "two", slots=SLOTS, loglevel="ERROR")
        sent: list[str] = []
        for n in range(RESTARTS):
            jobs = [f"r{n}-{m}" for m in range(3 * SLOTS)]
            for job in jobs:
                broker.send("kit.job", job, 0.3, ignore_result=True)
            broker.event_log.wait_for("start", jobs[:1], IN_TIME_S)
            server.stop()
            server.start()
            sent += jobs
        broker.event_log.wait_for("end", sent, IN_TIME_S)
        assert [worker.process.poll() for worker in workers] == [None, None], workers[0].output()[-2000:]
