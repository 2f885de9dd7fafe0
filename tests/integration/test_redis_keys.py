"""What is in Redis while jobs run, beside the table that says what is."""

import dataclasses
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from kit.client_rig import IN_TIME_S, params, rig
from kit.script_client import ScriptClient
from kit.waiting import wait_until
from pydantic import SecretStr
from redis import Redis

from celery_app import LANES, controls, create_app
from celery_app.budget import Cost, budget_for
from celery_app.client import Client
from celery_app.errors import LaneFull
from celery_app.keys import KEYS, UNIQUE, WAKES, Key
from celery_app.lanes import BATCH
from celery_app.settings import Limits, Settings
from demo.simulator import Behaviour
from tests.conftest import close

#: Celery 5.7 stores a result by a command that redis-py 8 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

DB = 12

#: Lanes whose jobs wait for the first one with their prompt's beginning.
CACHED = tuple(dataclasses.replace(lane, prompt_caches=True) for lane in LANES)

#: Redis' word for a key that is not there any more.
GONE = -2

#: What Redis says of a key -> the type that it has then.
TYPES = {
    "set": "string",
    "setbit": "string",
    "incrby": "string",
    "hset": "hash",
    "hincrby": "hash",
    "zadd": "zset",
    "sadd": "set",
    "lpush": "list",
    "rpush": "list",
    "xadd": "stream",
}


def key_of(name: str) -> Key | None:
    """Return the key of a name in Redis: the one that says most of it."""

    def matches(key: Key) -> bool:
        parts = re.split(r"<\w+>", key.name)
        return re.fullmatch(".*".join(map(re.escape, parts)), name, re.DOTALL) is not None

    found = [key for key in KEYS if matches(key)]
    return max(found, key=lambda key: len(re.sub(r"<\w+>", "", key.name)), default=None)


@contextmanager
def heard_of(redis: Redis) -> Iterator[set[tuple[str, str]]]:
    """Note what happens to the keys of the lanes within the block: name and event."""
    heard, over = set[tuple[str, str]](), threading.Event()
    redis.config_set("notify-keyspace-events", "KA")
    subscription = redis.pubsub()
    subscription.psubscribe(f"__keyspace@{DB}__:lanes:*")
    assert subscription.get_message(timeout=IN_TIME_S)

    def listen() -> None:
        while not over.is_set():
            message = subscription.get_message(timeout=0.1)
            if message is not None:
                name = message["channel"].decode().partition("__:lanes:")[2]
                heard.add((name, message["data"].decode()))

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        yield heard
    finally:
        time.sleep(0.3)  # what has been sent arrives within it, and one that is missed is heard of as missing
        over.set()
        thread.join(IN_TIME_S)
        subscription.close()
        redis.config_set("notify-keyspace-events", "")


def live(up: Any, redis: Redis) -> None:
    """Have everything happen that can happen to jobs and calls."""
    client: Client = up.client
    controls.pause(up.app, "batch", model="*nobody*", new=True)
    assert client.ask(tenant="acme", **params()).type == "message"
    assert list(client.stream(**params()))
    assert len(list(client.submit_many([params(), params(), params(fault="400")]).results(IN_TIME_S))) == 3
    client.submit(unique="one", unique_for=60, **params()).get(timeout=IN_TIME_S)
    up.api.control(latency=0.5)
    marked = {"type": "text", "text": "x" * 5_000, "cache_control": {"type": "ephemeral"}}
    for _ in range(3):
        client.submit("batch", **params(system=[marked]))
    batch = [client.submit("batch", **params("x" * 100_000)) for _ in range(30)]
    assert client.cancel(batch[-1])
    up.app.send_task("some.task", queue="normal", countdown=60)
    up.app.send_task("nobody.knows", queue="normal", ignore_result=True)
    redis.lpush("critical", "no job")
    wait_until(lambda: redis.zcard("lanes:dead") == 2, "the dead letters")
    stop_a_batch(up, redis)
    client.submit("batch", **params(fault="429;retry-after=1"))
    wait_until(lambda: redis.exists("lanes:budget:shut"), "the budget is shut")


def stop_a_batch(up: Any, redis: Redis) -> None:
    """Have a batch wait since it may cost nothing, and go on."""
    controls.pause(up.app, "batch")
    batch = up.client.submit_many([params()], usd=1)
    controls.set_limits(up.app, {"usd": 0}, batch=batch.id)
    controls.resume(up.app, "batch", model="")
    wait_until(lambda: redis.exists(f"lanes:parked:batch:{batch.id}"), "it is set aside")
    controls.set_limits(up.app, {"usd": 5}, batch=batch.id)
    assert [each.error for each in batch.results(IN_TIME_S)] == [None]


def miss_a_place(broker: str) -> None:
    """Have a large job find no room."""
    lanes = tuple(dataclasses.replace(lane, capacity=0, submit_wait=0.0) for lane in LANES)
    keys = {lane.name: SecretStr("unused") for lane in LANES}
    app = create_app(Settings(broker_url=broker, result_backend=broker, api_keys=keys, lanes=lanes))
    with pytest.raises(LaneFull):
        Client(app).submit("batch", **params("x" * 100_000))
    close(app)


def lose_a_call(redis: Redis) -> None:
    """Have a process die with a call, while another call waits for it, and a message of another queue in hand."""
    redis.lpush("mail", "{}")
    scripts = ScriptClient(redis)
    assert len(scripts.claim(queues=("mail",))) == 1
    budget = budget_for(Settings(limits=Limits(concurrency=1)), BATCH, "another")
    assert budget.reserve(redis, BATCH, Cost(), claim=("call-1", "dead:call")).granted
    assert not budget.reserve(redis, BATCH, Cost(), claim=("call-2", "dead:call"), waits=True).granted
    wait_until(lambda: scripts.extend(lease_ms=1) == [] and not redis.zscore("lanes:leases", "call-1"), "its end")


def test_the_table_has_every_key_with_its_type_and_lifetime(valkey, tmp_path):
    """Whatever happens to jobs, no other key is touched, each of them is, and what is to go has a time to live."""
    settings = {"EZAI_RPM": "900", "LANES_TENANT_WEIGHTS": '{"acme": 2}', "LANES_BATCH_BOOST_AFTER": "0.1"}
    settings |= {"EZAI_PRICES": '{"*": {"in": 1, "out": 5}}'}
    settings |= {"EZAI_USD_PER_DAY": "9", "LANES_TIME_ZONE": "Europe/Berlin"}
    with (
        valkey.client(DB) as redis,
        heard_of(redis) as heard,
        rig(valkey, DB, tmp_path, Behaviour(), lanes=CACHED, **settings) as up,
    ):
        live(up, redis)
        miss_a_place(valkey.url(DB))
        lose_a_call(redis)
        up.worker.process.send_signal(signal.SIGTERM)
        wait_until(lambda: redis.keys("lanes:leaving:*"), "it says that it stops")
        left = {name.decode(): (redis.type(name).decode(), redis.ttl(name)) for name in redis.scan_iter("lanes:*")}
        left = {name: (kind, seconds) for name, (kind, seconds) in left.items() if kind != "none" and seconds != GONE}

    assert not {name for name, _ in heard if key_of(name) is None}
    types = {(key.name, TYPES[event]) for name, event in heard if event in TYPES and (key := key_of(name))}
    assert types <= {(key.name, key.type) for key in KEYS}
    touched = {key_of(name) for name, _ in heard}
    # Whether a worker is told when to look again is a matter of moments.
    assert touched | {WAKES} == {*KEYS}
    for name, (kind, seconds) in left.items():
        key = key_of(name.removeprefix("lanes:"))
        if key is None or key is UNIQUE:
            continue
        assert kind == key.type, name
        assert seconds == -1 if key.kept is None else -1 < seconds <= key.kept, (name, seconds)
