import copy
import gc
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from celery import chord, group
from kit import records
from kit.client_rig import params
from kit.server import Server
from kit.waiting import in_time, wait_until
from kombu.exceptions import OperationalError
from pydantic import SecretStr
from redis import Redis

from celery_app import LANES, create_app
from celery_app.broker.packet import packet_of
from celery_app.client import Client
from celery_app.errors import BrokerUnreachable, DeadlineExceeded, LaneFull, MaybeQueued
from celery_app.jobs.headers import PUBLISH_HEADER
from celery_app.jobs.publishing import REPLY_TIMEOUT, SUBMIT_WITHIN
from celery_app.results.backend import backend_of
from celery_app.scheduler.scripts import PUBLISH
from celery_app.settings import Settings
from tasks import create_message
from tests.conftest import close

IN_TIME_S = 30.0
#: Seconds that a broker's error may take beyond what it is promised for, on a busy machine.
SLACK_S = 1.5
PROMISED_S = 3.0
#: Seconds for which the broker stands still: less than one reply is waited for, less than two, and more than both.
STOPS_S = (1.0, 1.6, 2.2, 3.0, 5.0)
#: Seconds after which a question is given up: nobody answers it here.
DEADLINE_S = 8.0
MEMBERS = 3


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server of this file's own, to be stopped."""
    with Server(tmp_path_factory.mktemp("server"), durable=False) as server:
        yield server


@pytest.fixture
def redis(server):
    """A client of the empty server."""
    with server.client() as client:
        client.flushdb()
        yield client


@pytest.fixture
def make_app(server, redis):
    """Makes applications; the arguments override a field in every lane."""
    assert redis
    made: list[Any] = []

    def make(**fields: Any) -> Any:
        keys = {lane.name: SecretStr("unused") for lane in LANES}
        lanes = tuple(replace(lane, **fields) for lane in LANES)
        made.append(create_app(Settings(broker_url=server.url, result_backend=server.url, api_keys=keys, lanes=lanes)))
        return made[-1]

    yield make
    gc.collect()
    for app in made:
        close(app)
        # A group's result that is collected later unsubscribes, through a connection that nobody would close.
        app.backend.result_consumer._pubsub = backend_of(app).result_consumer._pubsub = None


@pytest.fixture
def app(make_app):
    """An application whose questions are soon given up."""
    return make_app(deadline=DEADLINE_S)


@contextmanager
def standing_still(server: Server, seconds: float) -> Iterator[None]:
    """Have the server stand still for the block, at most for some seconds; afterwards it has read what was sent."""
    assert server.process
    process = server.process
    os.kill(process.pid, signal.SIGSTOP)
    wakes = threading.Timer(seconds, os.kill, (process.pid, signal.SIGCONT))
    wakes.start()
    try:
        yield
    finally:
        wakes.join(IN_TIME_S)
    with server.client() as client:
        # A command is read when its connection's turn comes; by the second look all of them had theirs.
        wait_until(client.ping, "it is awake", IN_TIME_S)
        client.ping()


def jobs(redis: Redis) -> list[str]:
    """Return the id of each job that is in a lane or waits for its time."""
    found = [job_id for lane in LANES for job_id in records.queued(redis, lane.name)]
    found += records.ids_in(redis, "scheduled")
    assert sorted(found) == sorted(records.all_facts(redis)), "none is in two places, and none in no place"
    return [json.loads(redis.hget("lanes:texts", job_id))["headers"]["id"] for job_id in found]


def submit(app: Any, **options: Any) -> None:
    """Submit one call."""
    app.tasks[create_message.name].apply_async(kwargs=params(), queue="normal", **options)


def signatures(app: Any) -> list[Any]:
    """Return the members of a group."""
    return [app.tasks[create_message.name].signature(kwargs=params()).set(queue="batch") for _ in range(MEMBERS)]


def members(app: Any) -> Any:
    """Return a group."""
    return group(signatures(app), app=app)


#: Ways into a lane, and how many jobs each makes.
WAYS: dict[str, tuple[Callable[[Any], Any], int]] = {
    "submit": (lambda app: Client(app).submit("normal", **params()), 1),
    "apply_async": (submit, 1),
    "countdown": (lambda app: submit(app, countdown=60), 1),
    "stream": (lambda app: Client(app).stream("normal", **params()), 1),
    "submit_many": (lambda app: Client(app).submit_many([params()] * MEMBERS, "batch"), MEMBERS),
    "group": (lambda app: members(app).apply_async(), MEMBERS),
    "chord": (lambda app: chord(members(app), signatures(app)[0], app=app).apply_async(), MEMBERS),
}
CASES = [(way, seconds) for way in WAYS for seconds in STOPS_S]
#: What `make test` has the time for: one reply lost, under each kind of preparing a message; and both.
SHORT = {("submit", 1.6), ("countdown", 1.6), ("countdown", 5.0), ("submit_many", 1.6), ("chord", 1.6)}


def marked(way: str, seconds: float) -> Any:
    """Return a case, a long proof if it is not one of the short ones."""
    marks = () if (way, seconds) in SHORT else (pytest.mark.slow,)
    return pytest.param(way, seconds, id=f"{way}-{seconds}", marks=marks)


@pytest.mark.parametrize(("way", "seconds"), [marked(*case) for case in CASES])
def test_a_broker_that_stands_still_has_each_job_once(server, redis, app, way, seconds):
    """However long it stood still: never a job twice; all of them, or an error in time that says what is not known."""
    send, count = WAYS[way]
    send(app)
    redis.flushdb()
    error = None
    with standing_still(server, seconds):
        begun = time.monotonic()
        try:
            send(app)
        except BrokerUnreachable as exc:
            error = exc
        took = time.monotonic() - begun
    queued = jobs(redis)
    assert len(queued) == len(set(queued))
    if error is None:
        assert len(queued) == count
    else:
        assert took >= 2 * REPLY_TIMEOUT, error  # it stood still for longer, or the machine did
        assert took < PROMISED_S + in_time(SLACK_S)
        assert len(queued) <= count
        assert isinstance(error, MaybeQueued) or not queued
    if way == "countdown":
        assert redis.zcard("lanes:scheduled") == len(queued), "none of them starts at once"


def test_a_lane_that_is_new_to_a_connection_has_a_job_once(server, redis, app):
    """A broker that stands still while a lane is declared, before its first job, gets that job all the same, once."""
    submit(app)
    redis.flushdb()
    with standing_still(server, 1.6):
        app.tasks[create_message.name].apply_async(kwargs=params(), queue="critical")
    assert len(jobs(redis)) == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Call to deprecated setex")
@pytest.mark.parametrize("seconds", STOPS_S)
def test_a_question_is_asked_once(server, redis, app, seconds):
    """A broker that stands still as a question arrives has it once; here nobody answers, so it ends by its deadline."""
    submit(app)
    redis.flushdb()
    with ThreadPoolExecutor(1) as pool:
        with standing_still(server, seconds):
            asked = pool.submit(Client(app).ask, "critical", **params())
            error = asked.exception(PROMISED_S + in_time(SLACK_S)) if seconds > SUBMIT_WITHIN else None
        queued = jobs(redis)
        if error is None:
            wait_until(lambda: len(jobs(redis)) == 1, "the question is queued", IN_TIME_S)
            error = asked.exception(IN_TIME_S)
    assert len(queued) <= 1
    assert isinstance(error, DeadlineExceeded if seconds < SUBMIT_WITHIN else (DeadlineExceeded, BrokerUnreachable))
    assert isinstance(error, DeadlineExceeded | MaybeQueued) or not queued


def test_a_cold_process_is_told_in_time(server, redis, make_app):
    """A process without a connection hears within 3 s that the broker is mute, and knows that nothing is queued."""
    app = make_app()
    with standing_still(server, SUBMIT_WITHIN + PROMISED_S):
        begun = time.monotonic()
        with pytest.raises(BrokerUnreachable) as caught:
            submit(app)
        assert time.monotonic() - begun < PROMISED_S + in_time(SLACK_S)
    assert not isinstance(caught.value, MaybeQueued)
    assert jobs(redis) == []


def test_a_dead_broker_is_known_to_have_nothing(tmp_path):
    """A connection that is refused leaves no doubt; the error does not speak of any."""
    with Server(tmp_path, durable=False) as server:
        keys = {lane.name: SecretStr("unused") for lane in LANES}
        app = create_app(Settings(broker_url=server.url, result_backend=server.url, api_keys=keys))
        submit(app)
        server.kill()
        with pytest.raises(BrokerUnreachable) as caught:
            submit(app)
        assert not isinstance(caught.value, MaybeQueued)
        close(app)


def test_a_repetition_that_finds_the_lane_full_is_in_its_place(redis, make_app):
    """A job that fills its lane is not refused when it is published again, and is there once."""
    app = make_app(capacity=1, submit_wait=0.0)
    with app.amqp.lane_connection() as connection:
        producer = app.amqp.Producer(connection)
        for _ in range(2):
            message = {"headers": {"id": "j", PUBLISH_HEADER: "token"}, "exchange": "", "routing_key": "batch"}
            producer.publish([[], {}, {}], serializer="json", **copy.deepcopy(message))
        assert jobs(redis) == ["j"]
        with pytest.raises(LaneFull):
            producer.publish([[], {}, {}], headers={"id": "k"}, exchange="", routing_key="batch", serializer="json")


def test_a_message_without_a_token_is_a_job_each_time(redis, make_app):
    """A stock producer's messages are queued as often as it sends them, whatever their ids."""
    with make_app().amqp.lane_connection() as connection:
        producer = connection.Producer(serializer="json")
        for token in (None, "", 7, "x" * 1_000, None, "", 7, "x" * 1_000):
            headers = {"id": "j"} if token is None else {"id": "j", PUBLISH_HEADER: token}
            producer.publish([[], {}, {}], headers=headers, exchange="", routing_key="batch")
    assert jobs(redis) == ["j"] * 8


def test_a_job_that_repeats_the_headers_of_another_is_another(redis, app):
    """Whoever copies a job's headers, its token with them, submits a job of its own; the token is not in the queue."""
    for _ in range(2):
        app.tasks[create_message.name].apply_async(kwargs=params(), queue="normal", headers={PUBLISH_HEADER: "copied"})
    assert len(set(jobs(redis))) == 2
    assert not any(PUBLISH_HEADER.encode() in text for text in redis.hvals("lanes:texts"))


def test_preparing_a_message_leaves_it_alone():
    """A repetition is prepared from the same message, so its countdown, times and tags are still there."""
    headers = {"id": "j", "eta": "2030-01-01T00:00:00+00:00", "submitted_at": 1.0, "deadline_at": 31.0}
    message = {"headers": {**headers, "lanes_model": "m", PUBLISH_HEADER: "t"}, "properties": {"delivery_tag": "d"}}
    before = copy.deepcopy(message)
    once, again = packet_of(message, 3), packet_of(message, 3)
    assert message == before
    assert once == again
    assert once.not_before > 0
    assert json.loads(once.text)["headers"]["eta"] is None


def test_a_closed_channel_is_a_lost_connection(redis, make_app):
    """A job whose channel was closed under it goes through another one, or its sender is told in the broker's words."""
    app = make_app()
    submit(app)
    with app.amqp.lane_producers._in_force().acquire(block=True) as producer:
        producer.channel.close()
    submit(app)
    assert len(jobs(redis)) == 2
    with app.amqp.lane_connection() as connection:
        producer = connection.Producer(serializer="json")
        producer.channel.close()
        app.send_task("tasks.create_message", kwargs=params(), queue="normal", producer=producer)
    assert len(jobs(redis)) == 3


def test_a_closed_channel_is_told_where_nothing_is_repeated(redis, make_app):
    """A publisher that asks for no repetition hears of the lost connection, in kombu's words; nothing is queued."""
    app = make_app()
    with app.amqp.lane_connection() as connection:
        producer = connection.Producer(serializer="json")
        producer.channel.close()
        with pytest.raises(OperationalError):
            app.send_task("tasks.create_message", kwargs=params(), queue="normal", producer=producer, retry=False)
    assert jobs(redis) == []


@pytest.mark.slow
def test_a_token_costs_little(redis):
    """Putting a job costs the server less than half as much again with a token as without."""
    message = {"body": "x", "headers": {"task": "t", "lanes_model": "m"}, "properties": {"delivery_tag": "d"}}
    packet = packet_of(message, 3)

    def seconds(token: bool) -> float:
        redis.flushdb()
        redis.config_resetstat()
        with redis.pipeline(transaction=False) as pipe:
            pipe.script_load(PUBLISH.source)
            for n in range(5_000):
                own = packet._replace(id=f"t{n}")
                pipe.evalsha(PUBLISH.sha, 0, *own.submission("", "batch", 100_000, token=f"{n:016}" if token else ""))
            pipe.execute()
        return float(redis.info("commandstats")["cmdstat_evalsha"]["usec_per_call"])

    pairs = [(seconds(token=True), seconds(token=False)) for _ in range(5)]
    ratio = sorted(with_it / without for with_it, without in pairs)[2]
    print(f"put with a token ÷ without: {ratio:.2f}; µs {pairs}")  # noqa: T201 - the figure is what it is run for
    assert ratio < 1.5
