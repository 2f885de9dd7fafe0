import base64
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from kit.script_client import MAX_DEATHS, Held, ScriptClient
from kit.waiting import wait_until
from redis import Redis
from redis.exceptions import OutOfMemoryError

from celery_app import dead_letters
from celery_app.broker import packet
from celery_app.broker.arrivals import MOST_MESSAGES
from celery_app.broker.claims import (
    CANCELLED,
    CLAIM_PROPERTY,
    QUEUE,
    REFUSED_AT,
    RESERVED_FOR,
    TICKET,
    TIMEOUTS,
    VERDICT,
    claim_of,
    delivery_of,
)
from celery_app.broker.delivery import Delivery
from celery_app.broker.lane_queue import LaneQueue
from celery_app.broker.lease import Leases
from celery_app.broker.returns import requeue
from celery_app.client.cancelling import mark
from celery_app.jobs.headers import BATCH_HEADER
from celery_app.keys import PUBLISHED_KEPT
from celery_app.routing import MODEL, SUBMITTED_AT
from celery_app.scheduler.scripts import TAKE_ENDED

# Every place where a fresh job's text may appear is looked at, with this allowance for a busy machine.
SOON_S = 10.0


@pytest.fixture
def scripts(client):
    """A worker's scripts at the empty broker."""
    return ScriptClient(client)


def put(app: Any, *names: str, queue: str = "batch", **options: Any) -> None:
    """Publish jobs through Celery, named by their ids."""
    for name in names:
        app.send_task("kit.job", (name,), task_id=name, queue=queue, ignore_result=True, **options)


#: Sorted sets that have ids of jobs and are no places of theirs.
NO_PLACES = {b"lanes:deadlines"}


def places(client: Redis, name: str) -> list[str]:
    """Return the places that a job is in: the keys with its id, but for its record."""
    found = []
    for key in client.keys("*"):
        kind = client.type(key)
        values: dict[bytes, Callable[[bytes], Any]] = {
            b"list": lambda key: client.lrange(key, 0, -1),
            b"set": client.smembers,
            b"zset": lambda key: client.zrange(key, 0, -1),
        }
        if key not in NO_PLACES and kind in values and name.encode() in values[kind](key):
            found.append(key.decode())
    return found


def records(client: Redis, name: str) -> tuple[bool, bool]:
    """Return whether a job has facts, and whether it has a text."""
    return bool(client.hexists("lanes:jobs", name)), bool(client.hexists("lanes:texts", name))


def text_of(client: Redis, name: str) -> Any:
    """Return a job's text, wherever it lies."""
    text = client.hget("lanes:texts", name)
    return client.get(f"lanes:text:{name}") if text is None else text


def delivery(client: Redis, held: Held) -> dict[str, Any]:
    """Return the message that a worker makes of a claimed job."""
    row = [part.encode() if isinstance(part, str) else part for part in held.job]
    delivery = Delivery([row], held.token, frozenset(), Leases(client, ""))
    ((_, message),) = delivery.messages(lambda name: text_of(client, name))
    return message


def message_of(name: str, note: str = "") -> dict[str, Any]:
    """Return a message as a stock producer writes it."""
    info = {"exchange": "", "routing_key": "batch"}
    return {
        "body": base64.b64encode(b"[[], {}, {}]").decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"id": name, "task": "kit.job", "note": note},
        "properties": {"delivery_tag": f"tag-{name}", "delivery_info": info, "priority": 0, "body_encoding": "base64"},
    }


def take_in_from(app: Any, lane: str) -> None:
    """Take in what stock producers have left in a lane's lists, as a worker does."""
    with app.connection_for_read() as connection:
        LaneQueue(connection.default_channel, lane).take_in()


LINE = "lanes:line:batch:0::"


def test_lanes_come_first_then_priorities_then_age(lanes_app, scripts):
    """The lane decides before the priority, the priority within the lane before the age."""
    put(lanes_app, "b1", "b2", queue="batch")
    put(lanes_app, "b-urgent", queue="batch", priority=0)
    put(lanes_app, "n1", "n2", queue="normal")
    put(lanes_app, "c-last", queue="critical", priority=9)
    put(lanes_app, "c1", "c2", queue="critical")
    assert scripts.names() == ["c1", "c2", "c-last", "n1", "n2", "b-urgent", "b1", "b2"]


def test_a_claim_takes_no_more_than_it_wants(lanes_app, scripts):
    """A claim of two leaves the third where it is, even when the first lane has only one."""
    put(lanes_app, "c1", queue="critical")
    put(lanes_app, "b1", "b2", queue="batch")
    assert scripts.names(2) == ["c1", "b1"]
    assert scripts.names(2) == ["b2"]


def test_a_job_is_in_exactly_one_place(lanes_app, scripts, client):
    """Queued, claimed, waiting, queued again, dead: whatever is done with a job, it has one place and one record."""
    put(lanes_app, "j")
    assert places(client, "j") == [LINE]
    (held,) = scripts.claim()
    assert places(client, "j") == ["lanes:leases"]
    assert scripts.requeue(held, delay_ms=1) == 1
    assert places(client, "j") == ["lanes:scheduled"]
    (held,) = wait_until(scripts.claim, "it is due", SOON_S)
    assert scripts.requeue(held) == 1
    assert places(client, "j") == [LINE]
    (held,) = scripts.claim()
    assert scripts.dead_letter(held, "why") == 1
    assert places(client, "j") == ["lanes:dead"]
    assert records(client, "j") == (True, True)
    (dead,) = dead_letters.find(lanes_app)
    assert (dead.id, dead.lane, dead.task, dead.reason) == ("j", "batch", "kit.job", "why")


def test_a_burial_and_its_telling_are_one_step(lanes_app, scripts, client):
    """A worker that dies after it has dead-lettered a job leaves it to others to tell those who wait."""
    put(lanes_app, "j")
    (held,) = scripts.claim()
    assert Leases(client, "").dead_letter(held.tag, held.token, "why")
    assert sorted(places(client, "j")) == ["lanes:dead", "lanes:ended"]
    assert [row[2:4] for row in TAKE_ENDED.run(client, (), ("", 20, 60_000))] == [[b"buried", b"why"]]


def test_a_job_that_is_done_leaves_nothing(lanes_app, scripts, client):
    """After it nothing is kept but bindings, the lane's numbers and turns, and for minutes the submission."""
    put(lanes_app, "j", "large", headers={"note": "x" * 100_000})
    put(lanes_app, "due", countdown=0.01)
    for _ in range(3):
        (held,) = wait_until(scripts.claim, "a job", SOON_S)
        assert scripts.ack(held) == 1
    client.delete("lanes:bell:batch")
    published = client.keys("lanes:published:batch:*")
    assert len(published) == 3
    assert all(0 < client.ttl(key) <= PUBLISHED_KEPT for key in published)
    left = {key.decode() for key in client.keys("*") if not key.startswith(b"_kombu.") and key not in published}
    assert left <= {"lanes:counts", "lanes:number", "lanes:clocks", "lanes:turns:batch", "lanes:time"}
    assert set(client.hvals("lanes:counts")) == {b"0"}
    assert client.zcard("lanes:turns:batch") <= 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(st.just("claim"), st.integers(0, 7)), max_size=30))
def test_a_claim_always_gets_the_oldest(lanes_app, client, steps):
    """However jobs are claimed and come back one by one in any order, the next claim gets the oldest queued."""
    client.flushdb()
    scripts, held = ScriptClient(client), []
    names = [f"j{n}" for n in range(8)]
    put(lanes_app, *names)
    queued = list(names)
    for step in steps:
        if step == "claim":
            got = scripts.claim()
            assert [job.name for job in got] == queued[:1]
            held += got
            queued = queued[1:]
        elif held:
            job = held.pop(step % len(held))
            assert scripts.requeue(job) == 1
            queued = sorted([*queued, job.name])
    assert scripts.names() == queued


def test_returns_that_fall_due_together_keep_their_order(lanes_app, scripts):
    """Jobs with different due times, all due by now, come back oldest first and ahead of fresh ones."""
    put(lanes_app, "j1", "j2", "j3")
    first, second, third = scripts.claim(3)
    put(lanes_app, "fresh")
    for job, delay_ms in ((first, 60), (second, 20), (third, 40)):
        scripts.requeue(job, delay_ms=delay_ms)
    wait_until(lambda: scripts.client.zcount("lanes:scheduled", "-inf", time.time() * 1000) == 3, "all are due", SOON_S)
    assert scripts.names() == ["j1", "j2", "j3", "fresh"]


def test_a_return_waits_in_the_broker_until_it_is_due(lanes_app, scripts):
    """A returned job cannot be claimed before its time, the claim says how long that is, and then it goes first."""
    put(lanes_app, "j")
    (held,) = scripts.claim()
    before = time.monotonic()
    scripts.requeue(held, delay_ms=150)
    put(lanes_app, "fresh")
    assert scripts.names(0) == []
    assert 0 < scripts.look_ms <= 150
    assert scripts.names(1) == ["fresh"]
    assert wait_until(scripts.names, "the return is due", SOON_S) == ["j"]
    assert time.monotonic() - before >= 0.149


def test_whose_claim_is_gone_can_do_nothing(lanes_app, scripts, client):
    """Once its lease is over and another worker has the job, the first one ends it in no way."""
    put(lanes_app, "j")
    (old,) = scripts.claim()
    new: list[Held] = wait_until(lambda: scripts.claim(lease_ms=1), "the lease has expired", SOON_S)
    assert [job.name for job in new] == ["j"]
    before = client.zrange("lanes:leases", 0, -1, withscores=True)
    assert scripts.ack(old) == 0
    assert scripts.requeue(old) == 0
    assert scripts.requeue(old, delay_ms=10) == 0
    assert scripts.dead_letter(old, "no") == 0
    assert scripts.extend(old) == [old.tag]
    assert client.zrange("lanes:leases", 0, -1, withscores=True) == before
    assert places(client, "j") == ["lanes:leases"]
    assert scripts.ack(new[0]) == 1
    assert scripts.ack(new[0]) == 0


def test_an_expired_lease_brings_its_job_to_the_front(lanes_app, scripts, client):
    """An abandoned job goes ahead of those that came after it, and is marked as delivered before."""
    put(lanes_app, "j1", "j2")
    scripts.claim()
    put(lanes_app, "j3")
    jobs = wait_until(lambda: scripts.claim(3, lease_ms=1) if time.sleep(0.002) is None else None, "a claim", SOON_S)
    assert [job.name for job in jobs] == ["j1", "j2", "j3"]
    assert [job.job.out for job in jobs] == [True, False, False]
    delivered = [delivery(client, job) for job in jobs]
    assert [info["properties"]["delivery_info"].get("redelivered") for info in delivered] == [True, None, None]


def test_a_sign_of_life_keeps_a_lease(lanes_app, scripts):
    """A job whose worker extends its lease stays with it; its neighbour without one comes back."""
    put(lanes_app, "alive", "dead")
    alive, _ = scripts.claim(2)
    give_up_at = time.monotonic() + 0.3
    while time.monotonic() < give_up_at:
        assert scripts.extend(alive, lease_ms=150) == []
        time.sleep(0.01)
    assert scripts.names() == ["dead"]


def test_a_job_that_kills_its_workers_is_dead_lettered(lanes_app, scripts, client):
    """Nobody knows whose fault the first two deaths were; the fifth after them sends the job to the dead letters."""
    put(lanes_app, "poison")
    for _ in range(2 + MAX_DEATHS):
        assert wait_until(lambda: scripts.names(lease_ms=1), "another delivery", SOON_S) == ["poison"]
    wait_until(lambda: scripts.extend(lease_ms=1) == [] and scripts.dead(), "the dead-lettering", SOON_S)
    assert scripts.names() == []
    (dead,) = dead_letters.find(lanes_app)
    assert (dead.id, "5 times" in dead.reason) == ("poison", True)
    assert set(places(client, "poison")) == {"lanes:dead", "lanes:ended"}


def test_only_the_killer_is_dead_lettered(lanes_app, client):
    """What two dead processes held are suspects: each is the only one of its process from then on, and to blame."""
    names = [f"j{n}" for n in range(4)]
    put(lanes_app, *names, queue="critical")
    assert ScriptClient(client).names(4) == names
    again = wait_until(lambda: ScriptClient(client).names(4, lease_ms=1), "all at once: one death says little", SOON_S)
    assert again == names
    for n in range(MAX_DEATHS):
        put(lanes_app, f"beside-{n}", headers={MODEL: f"model-{n}"})
        held = wait_until(lambda: ScriptClient(client).claim(4, lease_ms=1), "a suspect and the fresh job", SOON_S)
        suspect, *beside = [(each.name, each.job.suspect) for each in held]
        assert suspect == ("j0", True)
        assert beside == [(f"beside-{m}", False) for m in (n - 1, n) if m >= 0]
        others = [held for scripts in (ScriptClient(client) for _ in names) for held in scripts.claim(4, lease_ms=0)]
        assert all(ScriptClient(client).ack(held) for held in others)
        assert all(held.job.suspect for held in others)
        assert [held.name for held in others] == (names[1:] if n == 0 else [f"beside-{n - 2}"][: n - 1])
    wait_until(
        lambda: ScriptClient(client).extend(lease_ms=1) == [] and ScriptClient(client).dead(),
        "the dead-lettering",
        SOON_S,
    )
    assert ScriptClient(client).dead() == ["j0"]
    assert ScriptClient(client).names(4) == [f"beside-{n}" for n in (MAX_DEATHS - 2, MAX_DEATHS - 1)]


def test_a_process_gets_one_suspect_at_a_time(lanes_app, client):
    """While it has one, it gets only what is above suspicion, even from behind another one: no slot is left idle."""
    put(lanes_app, "s1", "s2")
    assert ScriptClient(client).names(2) == ["s1", "s2"]
    assert wait_until(lambda: ScriptClient(client).names(2, lease_ms=1), "both", SOON_S) == ["s1", "s2"]
    scripts = ScriptClient(client)
    (suspect,) = wait_until(lambda: scripts.claim(2, lease_ms=1), "a suspect", SOON_S)
    put(lanes_app, "fresh-1", "fresh-2")
    assert scripts.names(3, has_suspect=suspect.job.suspect) == ["fresh-1", "fresh-2"]
    assert scripts.names(2, has_suspect=False) == ["s2"]


def test_deaths_are_forgotten_once_a_job_went_well(lanes_app, scripts):
    """A return that was no accident starts the count of accidents anew."""
    put(lanes_app, "j")
    for _ in range(3):
        for _ in range(MAX_DEATHS):
            assert wait_until(lambda: scripts.claim(lease_ms=1), "another delivery", SOON_S)
        held = wait_until(lambda: scripts.claim(lease_ms=1), "another delivery", SOON_S)[0]
        assert scripts.requeue(held) == 1
    assert scripts.dead() == []


FAKES = (
    '"delivery_tag": "x", "correlation_id": "x", "submitted_at": 1, "retries": 77, "eta": "1999", "redelivered": true, '
    '"priority": 0, '
    '"delivery_info": {"redelivered": true}, "properties": {"delivery_tag": "y"}}'
)
ESCAPED = (FAKES, json.dumps(FAKES), json.dumps(json.dumps(FAKES)), FAKES.replace('"', '\\"'), FAKES.replace('"', "'"))
LARGE = "\n".join(ESCAPED) * 1_200
assert len(LARGE) > 1_000_000


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"args": (LARGE,)}, id="args"),
        pytest.param({"kwargs": {"prompt": LARGE, FAKES: FAKES}}, id="kwargs"),
        pytest.param({"argsrepr": "\n".join(ESCAPED), "kwargsrepr": json.dumps(FAKES)}, id="argsrepr"),
        pytest.param({"argsrepr": LARGE, "kwargsrepr": LARGE}, id="long-argsrepr"),
        pytest.param({"shadow": FAKES, "argsrepr": FAKES[:-1] + '\\"'}, id="shadow"),
        pytest.param({"headers": {"note": FAKES, FAKES: FAKES}}, id="header-text"),
        pytest.param({"headers": {"trace": json.loads(f"{{{FAKES[:-1]}}}")}}, id="nested-headers"),
        pytest.param({"headers": {"note": LARGE}}, id="long-header"),
        pytest.param({"args": ("问" * 5_000,), "kwargs": {"prompt": "😀" * 5_000}}, id="not-ascii"),
    ],
)
def test_a_prompt_cannot_forge_facts(lanes_app, scripts, client, options):
    """Whatever text a job has, its own id, age and tries are told, and its text comes back byte for byte."""
    put(lanes_app, "j0")
    lanes_app.send_task("kit.job", task_id="j1", queue="batch", ignore_result=True, **options)
    put(lanes_app, "j2")
    mark(lanes_app, "x")
    text = text_of(client, "j1")
    oldest, forger, youngest = scripts.claim(3)
    assert (forger.tag, forger.cancelled, forger.job.tries, forger.job.out) == ("j1", False, 0, False)
    for job in (youngest, forger, oldest):
        assert scripts.requeue(job, retries=3) == 1
    oldest, forger, youngest = scripts.claim(3)
    assert [job.tag for job in (oldest, forger, youngest)] == ["j0", "j1", "j2"]
    assert scripts.requeue(forger, delay_ms=1, retries=4) == 1
    (forger,) = wait_until(scripts.claim, "it is due", SOON_S)
    assert text_of(client, "j1") == text

    message = delivery(client, forger)
    expected = json.loads(text)
    submitted_at = message["headers"].pop(SUBMITTED_AT)
    assert abs(submitted_at - expected["headers"].pop(SUBMITTED_AT)) < SOON_S
    told = {"eta": None, "retries": 4, TIMEOUTS: 0, REFUSED_AT: 0, "redelivered": True}
    expected["headers"].update(told)
    expected["properties"]["delivery_info"]["redelivered"] = True
    held = {CLAIM_PROPERTY: forger.token, QUEUE: "batch", CANCELLED: False, TICKET: "", VERDICT: "", RESERVED_FOR: ""}
    expected["properties"].update(held, delivery_tag=delivery_of("j1", forger.token))
    assert message == expected
    assert scripts.ack(forger) == 1


def test_a_claim_tells_which_jobs_were_cancelled(lanes_app, scripts):
    """By their own mark, or by that of their batch, which a job names in a header and not in its id."""
    put(lanes_app, "b-1", "c-1", "d", "e")
    put(lanes_app, "b-2", headers={BATCH_HEADER: "b"})
    for each in ("b", "d"):
        mark(lanes_app, each)
    said = {held.name: held.cancelled for held in scripts.claim(10)}
    assert said == {"b-1": False, "b-2": True, "c-1": False, "d": True, "e": False}


@pytest.mark.parametrize("how", ["requeue", "delay", "reap"])
def test_a_job_that_was_cancelled_meanwhile_ends_as_it_comes_back(lanes_app, scripts, client, how):
    """It does not stand in line again, where it would wait for a budget and draw on it; nor does one of a batch."""
    put(lanes_app, "j")
    put(lanes_app, "of-a-batch", headers={BATCH_HEADER: "b"})
    held = scripts.claim(2)
    for each in ("j", "b"):
        mark(lanes_app, each)
    for each in held if how != "reap" else ():
        assert scripts.requeue(each, delay_ms=60_000 if how == "delay" else 0)
    if how == "reap":
        client.zadd("lanes:leases", {each.tag: 0 for each in held})
    assert scripts.names() == []
    assert [places(client, name) for name in ("j", "of-a-batch")] == [["lanes:ended"], ["lanes:ended"]]


def test_an_eta_is_forgotten_once_it_was_waited_for(lanes_app, scripts, client):
    """A job with a countdown reaches the worker without an ETA, whatever its other headers hold."""
    put(lanes_app, "j", countdown=1, headers={"note": LARGE})
    assert scripts.claim() == []
    (held,) = wait_until(scripts.claim, "it is due", SOON_S)
    assert delivery(client, held)["headers"]["eta"] is None


def test_a_foreign_order_of_fields_is_understood(lanes_app, scripts, client):
    """A producer that writes properties first and the body last is served, and its job can be returned."""
    properties = {"delivery_tag": "t1", "delivery_info": {"exchange": "", "routing_key": "batch"}, "priority": 6}
    headers = {"id": "foreign", "task": "kit.job", "retries": 2, SUBMITTED_AT: 1.0}
    body = base64.b64encode(json.dumps([[FAKES * 50], {}, {}]).encode()).decode()
    message = {"properties": properties, "headers": headers, "content-type": "application/json", "body": body}
    client.lpush("batch", json.dumps(message))
    assert scripts.claim() == []
    assert scripts.has_arrivals
    take_in_from(lanes_app, "batch")
    (held,) = scripts.claim()
    assert (held.tag, held.job.tries) == ("foreign", 2)
    assert scripts.requeue(held) == 1
    (held,) = scripts.claim()
    assert (held.tag, held.message["body"]) == ("foreign", body)
    assert scripts.ack(held) == 1
    assert not client.exists("batch", "lanes:arrived:batch")


@pytest.mark.parametrize("text", [b"not json", b"{}", b"[1]", b'{"properties": []}', b'{"headers": {}}', b"\xff", b""])
def test_what_is_no_message_is_dead_lettered(lanes_app, client, text):
    """It goes to the dead letters with its reason, as it was, and the job behind it is claimed."""
    client.lpush("batch", text)
    put(lanes_app, "good")
    with lanes_app.connection_for_read() as connection:
        channel = connection.default_channel
        lanes_app.amqp.queues["batch"](channel).declare()
        good = channel.basic_get("batch") or channel.basic_get("batch")
        assert good.headers["id"] == "good"
        assert channel.basic_get("batch") is None
        (dead,) = dead_letters.find(lanes_app)
        assert "undecodable" in dead.reason
        assert text_of(client, dead.id).strip() == text
        good.ack()


def test_a_message_above_the_limit_is_dead_lettered(lanes_app, client, monkeypatch):
    """A stock producer's message larger than the limit goes to the dead letters; one at the limit does not."""
    texts = [json.dumps(message_of(name, "x" * size)).encode() for name, size in (("ok", 0), ("big", 1))]
    monkeypatch.setattr(packet, "MAX_MESSAGE_BYTES", len(texts[0]))
    client.lpush("batch", *texts)
    with lanes_app.connection_for_read() as connection:
        channel = connection.default_channel
        lanes_app.amqp.queues["batch"](channel).declare()
        found = channel.basic_get("batch")
        assert found.headers["id"] == "ok"
        found.ack()
        assert channel.basic_get("batch") is None
    (dead,) = dead_letters.find(lanes_app)
    assert (dead.task_id, "too large" in dead.reason, dead.size) == ("big", True, len(texts[1]))


def test_a_job_whose_record_is_gone_holds_up_nobody(lanes_app, scripts, client):
    """Somebody has deleted it by hand: it is passed over, and takes no room in its lane any more."""
    put(lanes_app, "gone", "there")
    client.hdel("lanes:jobs", "gone")
    assert scripts.names() == ["there"]
    assert scripts.places("batch") == 0


def test_what_a_dead_worker_was_taking_in_is_taken_in_once(lanes_app, scripts, client):
    """A message between list and line is another worker's to take in; one that has arrived does not do so twice."""
    text = json.dumps(message_of("j"))
    client.lpush("lanes:arrived:batch", text)
    assert scripts.claim() == []
    assert scripts.has_arrivals
    take_in_from(lanes_app, "batch")
    client.lpush("lanes:arrived:batch", text)  # as another worker sees it that had read it at the same time
    take_in_from(lanes_app, "batch")
    assert scripts.names() == ["j"]
    assert not client.exists("lanes:arrived:batch")


def test_arrivals_outlast_a_server_that_is_full(lanes_app, scripts, client):
    """What a full server will not take in stays where it was, and is taken in once there is room."""
    client.lpush("lanes:arrived:batch", *(json.dumps(message_of(f"j{n}")) for n in range(MOST_MESSAGES)))
    client.config_set("maxmemory", 1)
    try:
        for _ in range(2):
            with pytest.raises(OutOfMemoryError):
                take_in_from(lanes_app, "batch")
    finally:
        client.config_set("maxmemory", 0)
    take_in_from(lanes_app, "batch")
    assert scripts.names() == [f"j{n}" for n in range(MOST_MESSAGES)]


def test_arrivals_are_taken_in_by_the_handful(lanes_app, scripts, client):
    """A worker has jobs to look after: it takes in 20 at a time, the most important list first, in their order."""
    client.lpush("batch\x06\x166", *(json.dumps(message_of(f"late-{n}")) for n in range(30)))
    client.lpush("batch", *(json.dumps(message_of(f"soon-{n}")) for n in range(15)))
    take_in_from(lanes_app, "batch")
    assert client.llen("batch\x06\x166") == 25
    assert scripts.names() == [*(f"soon-{n}" for n in range(15)), *(f"late-{n}" for n in range(5))]


def test_jobs_of_a_stock_worker_come_back_after_the_projects_own_timeout(lanes_app, client):
    """What a stock worker took and never acknowledged is back by kombu's own means, and no earlier than it says."""
    lanes_app.conf.broker_transport_options = {"visibility_timeout": 7_200}
    message = message_of("stock")
    tag = message["properties"]["delivery_tag"]
    client.hset("unacked", tag, json.dumps([message, "normal", "normal"]))
    with lanes_app.connection_for_read() as connection:
        channel = connection.default_channel
        lanes_app.amqp.queues["normal"](channel).declare()
        for age, found in ((7_190, []), (7_210, ["stock"])):
            client.zadd("unacked_index", {tag: time.time() - age})
            channel.qos.restore_visible(interval=1)
            LaneQueue(channel, "normal").take_in()
            assert ScriptClient(client).names() == found


def test_a_channel_whose_connection_is_lost_has_nothing_to_return(lanes_app):
    """A worker that closes it must not connect anew for nothing: where that failed, the worker ended."""
    with lanes_app.connection_for_read() as connection:
        channel = connection.default_channel
        assert channel.client.ping()
        channel.connection.client, channel._pool = None, None
        assert channel.qos.restore_unacked() == []
        channel.connection.client = connection


def test_a_late_acknowledgement_says_nothing_of_the_next_delivery(lanes_app, client):
    """A job that came back within milliseconds is held by its second claim, whatever becomes of the first delivery."""
    put(lanes_app, "j")
    with lanes_app.connection_for_write() as connection:
        channel = connection.default_channel
        first = channel.basic_get("batch")
        assert requeue(lanes_app, first.properties, delay=0.0, retries=1)
        second = channel.basic_get("batch")
        first.ack()
        assert client.zcard("lanes:leases") == 1
        assert channel.leases.holds(claim_of(second.delivery_tag)[0])
        second.ack()
    assert client.zcard("lanes:leases") == 0
    assert client.exists("lanes:jobs") == 0


def test_a_message_of_ones_own_queue_is_held_like_a_job(scripts, client):
    """A worker that dies leaves it at the front of its list, as it was; one that is done with it leaves nothing."""
    texts = [json.dumps(message_of(name)).encode() for name in ("m1", "m2")]
    client.lpush("own", *texts)
    (held,) = scripts.claim(queues=("own",))
    assert (held.queue, held.text, held.job.out) == ("own", texts[0], False)
    assert client.lrange("own", 0, -1) == texts[1:]
    wait_until(lambda: scripts.extend(lease_ms=1) == [] and client.llen("own") == 2, "it is back", SOON_S)
    assert client.lrange("own", 0, -1) == [texts[1], texts[0]]
    for _ in texts:
        (held,) = scripts.claim(queues=("own",))
        assert scripts.ack(held) == 1
    assert not client.exists("own", "lanes:jobs", "lanes:texts", "lanes:leases")


def test_a_job_may_be_called_like_a_message_of_ones_own_queue(lanes_app, scripts, client):
    """A producer chooses his jobs' ids: neither loses its text to the other."""
    put(lanes_app, "own-1", "own-2")
    client.lpush("own", json.dumps(message_of("m")))
    (own,) = scripts.claim(queues=("own",))
    put(lanes_app, own.tag)
    assert scripts.names() == ["own-1", "own-2", own.tag]
    assert scripts.ack(own) == 1
    assert own.name == "m"


def test_ones_own_queues_come_after_the_lanes_and_by_priority(lanes_app, scripts, client):
    """A claim takes from them what the lanes have left of it, the most important list first."""
    client.lpush("own\x06\x169", json.dumps(message_of("own-late")))
    client.lpush("own", json.dumps(message_of("own-soon")))
    put(lanes_app, "b", queue="batch")
    assert scripts.names(1, queues=("batch", "own")) == ["b"]
    assert scripts.names(3, queues=("batch", "own")) == ["own-soon", "own-late"]
