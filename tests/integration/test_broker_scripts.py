from __future__ import annotations

import base64
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from broker_kit.hand import Hand, Held
from broker_kit.waiting import eventually
from hypothesis import HealthCheck, given, settings, strategies as st

from celery_app.broker.claims import claim_of
from celery_app.broker.inbox import Claimed
from celery_app.broker.lease import Leases
from celery_app.broker.returns import give_back
from celery_app.client.cancelling import mark
from celery_app.job_keys import PUBLISHED_KEPT
from celery_app.routing import SUBMITTED_AT

if TYPE_CHECKING:
    from redis import Redis

# Every place where a fresh job's text may appear is looked at, with this allowance for a busy machine.
SOON_S = 10.0


@pytest.fixture
def client(valkey: Any, broker_url: str) -> Any:
    """A client of the empty broker."""
    assert broker_url
    with valkey.client() as client:
        yield client


@pytest.fixture
def hand(client: Redis) -> Hand:
    """A worker's hand at the empty broker."""
    return Hand(client)


def put(app: Any, *names: str, queue: str = "batch", **options: Any) -> None:
    """Publish jobs through Celery, named by their ids."""
    for name in names:
        app.send_task("kit.job", (name,), task_id=name, queue=queue, ignore_result=True, **options)


def places(client: Redis, name: str) -> list[str]:
    """Return every key that has the job's text."""
    found = []
    for key in client.keys("*"):
        kind = client.type(key)
        values = {
            b"list": lambda key: client.lrange(name=key, start=0, end=-1),
            b"hash": client.hvals,
        }.get(kind, lambda _: [])(key)
        if any(f'"id": "{name}"'.encode() in value for value in values):
            found.append(key.decode())
    return found


def test_lanes_come_first_then_priorities_then_age(lanes_app: Any, hand: Hand) -> None:
    """The lane decides before the priority, the priority within the lane before the age."""
    put(lanes_app, "b1", "b2", queue="batch")
    put(lanes_app, "b-urgent", queue="batch", priority=0)
    put(lanes_app, "n1", "n2", queue="normal")
    put(lanes_app, "c-last", queue="critical", priority=9)
    put(lanes_app, "c1", "c2", queue="critical")
    assert hand.names() == ["c1", "c2", "c-last", "n1", "n2", "b-urgent", "b1", "b2"]


def test_a_claim_takes_no_more_than_it_wants(lanes_app: Any, hand: Hand) -> None:
    """A claim of two leaves the third where it is, even when the first lane has only one."""
    put(lanes_app, "c1", queue="critical")
    put(lanes_app, "b1", "b2", queue="batch")
    assert hand.names(2) == ["c1", "b1"]
    assert hand.names(2) == ["b2"]


def test_a_job_is_in_exactly_one_place(lanes_app: Any, hand: Hand, client: Redis) -> None:
    """Queued, claimed, returning, queued again, dead: whatever is done with a job, its text is in one key."""
    put(lanes_app, "j")
    assert places(client, "j") == ["batch\x06\x166"]
    (held,) = hand.claim()
    assert places(client, "j") == ["unacked"]
    assert hand.give_back(held, delay_ms=1) == 1
    assert places(client, "j") == ["lanes:returned"]
    (held,) = eventually(hand.claim, SOON_S, "the return is due")
    assert hand.give_back(held) == 1
    assert places(client, "j") == ["batch\x06\x166"]
    (held,) = hand.claim()
    assert hand.give_up(held, "why") == 1
    assert places(client, "j") == ["lanes:dead"]
    assert hand.dead() == {held.tag: "batch|why"}


def test_a_settled_job_leaves_nothing(lanes_app: Any, hand: Hand, client: Redis) -> None:
    """After a job is done nothing is kept but bindings, which models the lane had, and for minutes the submission."""
    put(lanes_app, "j")
    (held,) = hand.claim()
    assert hand.settle(held) == 1
    client.delete("lanes:bell:batch")
    (published,) = client.keys("lanes:published:batch:*")
    assert 0 < client.ttl(published) <= PUBLISHED_KEPT
    left = [key for key in client.keys("*") if not key.startswith(b"_kombu.") and key != published]
    assert left == [b"lanes:models:batch\x06\x166"]
    assert 0 < client.ttl("lanes:models:batch\x06\x166") <= 86_400


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(st.just("claim"), st.integers(0, 7)), max_size=30))
def test_a_claim_always_gets_the_oldest(lanes_app: Any, client: Redis, steps: list[Any]) -> None:
    """However jobs are claimed and come back one by one in any order, the next claim gets the oldest queued."""
    client.flushdb()
    hand, held = Hand(client), []
    names = [f"j{n}" for n in range(8)]
    put(lanes_app, *names)
    queued = list(names)
    for step in steps:
        if step == "claim":
            got = hand.claim()
            assert [job.name for job in got] == queued[:1]
            held += got
            queued = queued[1:]
        elif held:
            job = held.pop(step % len(held))
            assert hand.give_back(job) == 1
            queued = sorted([*queued, job.name])
    assert hand.names() == queued


def test_returns_that_fall_due_together_keep_their_order(lanes_app: Any, hand: Hand) -> None:
    """Jobs with different due times, all due by now, come back oldest first and ahead of fresh ones."""
    put(lanes_app, "j1", "j2", "j3")
    first, second, third = hand.claim(3)
    put(lanes_app, "fresh")
    for job, delay_ms in ((first, 60), (second, 20), (third, 40)):
        hand.give_back(job, delay_ms=delay_ms)
    eventually(lambda: hand.client.zcount("lanes:returns", "-inf", time.time() * 1000) == 3, SOON_S, "all are due")
    assert hand.names() == ["j1", "j2", "j3", "fresh"]


def test_a_return_waits_in_the_broker_until_it_is_due(lanes_app: Any, hand: Hand) -> None:
    """A returned job cannot be claimed before its time, the claim says how long that is, and then it goes first."""
    put(lanes_app, "j")
    (held,) = hand.claim()
    before = time.monotonic()
    hand.give_back(held, delay_ms=150)
    put(lanes_app, "fresh")
    assert hand.names(0) == []
    assert 0 < hand.next_due_ms <= 150
    assert hand.names(1) == ["fresh"]
    assert eventually(hand.names, SOON_S, "the return is due") == ["j"]
    assert time.monotonic() - before >= 0.149


def test_whose_claim_is_gone_can_do_nothing(lanes_app: Any, hand: Hand, client: Redis) -> None:
    """After its lease expired and another worker has the job, the first one's settle, return and burial do nothing."""
    put(lanes_app, "j")
    (old,) = hand.claim()
    new: list[Held] = eventually(lambda: hand.claim(lease_ms=1), SOON_S, "the lease has expired")
    assert [job.name for job in new] == ["j"]
    before = client.hgetall("unacked")
    assert hand.settle(old) == 0
    assert hand.give_back(old) == 0
    assert hand.give_back(old, delay_ms=10) == 0
    assert hand.give_up(old, "no") == 0
    assert hand.extend(old) == [old.tag]
    assert client.hgetall("unacked") == before
    assert places(client, "j") == ["unacked"]
    assert hand.settle(new[0]) == 1
    assert hand.settle(new[0]) == 0


def test_an_expired_lease_brings_its_job_to_the_front(lanes_app: Any, hand: Hand) -> None:
    """An abandoned job goes ahead of those that came after it, and is marked as delivered before."""
    put(lanes_app, "j1", "j2")
    hand.claim()
    put(lanes_app, "j3")
    jobs = eventually(lambda: hand.claim(3, lease_ms=1) if time.sleep(0.002) is None else None, SOON_S, "a claim")
    assert [job.name for job in jobs] == ["j1", "j2", "j3"]
    assert [job.message["properties"]["delivery_info"].get("redelivered") for job in jobs] == [True, None, None]


def test_a_sign_of_life_keeps_a_lease(lanes_app: Any, hand: Hand) -> None:
    """A job whose worker extends its lease stays with it; its neighbour without one comes back."""
    put(lanes_app, "alive", "dead")
    alive, _ = hand.claim(2)
    give_up_at = time.monotonic() + 0.3
    while time.monotonic() < give_up_at:
        assert hand.extend(alive, lease_ms=150) == []
        time.sleep(0.01)
    assert hand.names() == ["dead"]


def test_a_job_that_kills_its_workers_is_buried(lanes_app: Any, hand: Hand, client: Redis) -> None:
    """The fifth delivery that nobody finishes sends a job to the dead letters, with the reason, and not before."""
    put(lanes_app, "poison")
    for _ in range(5):
        assert eventually(lambda: hand.names(lease_ms=1), SOON_S, "another delivery") == ["poison"]
    eventually(lambda: hand.extend(lease_ms=1) == [] and hand.dead(), SOON_S, "the burial")
    assert hand.names() == []
    (reason,) = hand.dead().values()
    assert "5 times" in reason
    assert places(client, "poison") == ["lanes:dead"]
    assert client.hgetall("lanes:deliveries") == {}


def test_deliveries_are_forgotten_once_a_job_went_well(lanes_app: Any, hand: Hand) -> None:
    """A return that was no accident starts the count of accidents anew."""
    put(lanes_app, "j")
    for _ in range(3):
        for _ in range(3):
            assert eventually(lambda: hand.claim(lease_ms=1), SOON_S, "another delivery")
        held = eventually(lambda: hand.claim(lease_ms=1), SOON_S, "another delivery")[0]
        assert hand.give_back(held) == 1
    assert hand.dead() == {}


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
def test_a_prompt_cannot_forge_header_fields(
    lanes_app: Any, hand: Hand, client: Redis, options: dict[str, Any]
) -> None:
    """Whatever text a job has, its own tag, age and retries are read and written, and its body comes back unchanged."""
    put(lanes_app, "j0")
    lanes_app.send_task("kit.job", task_id="j1", queue="batch", ignore_result=True, **options)
    put(lanes_app, "j2")
    mark(lanes_app, "x")
    original = json.loads(client.lindex("batch\x06\x166", 1))
    oldest, forger, youngest = hand.claim(3)
    assert (forger.tag, forger.name) == (original["properties"]["delivery_tag"], "j1")
    assert forger.cancelled != b"1"
    for job in (youngest, forger, oldest):
        hand.give_back(job, retries=3)
    oldest, forger, youngest = hand.claim(3)
    assert [job.name for job in (oldest, forger, youngest)] == ["j0", "j1", "j2"]
    hand.give_back(forger, delay_ms=1, retries=4)
    (forger,) = eventually(hand.claim, SOON_S, "the return is due")
    reply = [-1, b"batch", forger.tag.encode(), forger.cancelled, forger.text]
    claimed = Claimed(reply, "t", frozenset(), Leases(client, "", "\x06\x16"))
    (message,) = [message for _, message in claimed.messages()]
    expected = original
    expected["headers"]["retries"] = 4
    expected["properties"]["delivery_info"]["redelivered"] = True
    expected["properties"].update(lanes_claim="t", lanes_queue="batch")
    expected["properties"]["delivery_tag"] = f"t|{forger.tag}"
    if forger.cancelled:  # else its own id is out of the script's reach, and the worker asks by itself
        expected["properties"]["lanes_cancelled"] = False
    assert message == expected
    assert hand.settle(forger) == 1


def test_a_claim_tells_which_jobs_were_cancelled(lanes_app: Any, hand: Hand, client: Redis) -> None:
    """By their own mark or their batch's; a text that does not say whose it is leaves the question to the worker."""
    put(lanes_app, "b-1", "b-2", "c-1", "d", "e")
    for each in ("b", "d"):
        mark(lanes_app, each)
    client.lpush("batch\x06\x166", json.dumps({"properties": {"delivery_tag": "t"}, "headers": {"id": "foreign"}}))
    said = {held.name: held.cancelled for held in hand.claim(10)}
    assert said == {"b-1": b"1", "b-2": b"1", "c-1": b"0", "d": b"1", "e": b"0", "foreign": b""}


def test_an_eta_is_forgotten_once_it_was_waited_for(lanes_app: Any, hand: Hand) -> None:
    """A job with a countdown reaches the worker without an ETA, whatever its other headers hold."""
    put(lanes_app, "j", countdown=1, headers={"note": LARGE})
    assert hand.names() == []
    (held,) = eventually(hand.claim, SOON_S, "it is due")
    assert held.message["headers"]["eta"] is None


def test_a_foreign_order_of_fields_is_understood(hand: Hand, client: Redis) -> None:
    """A producer that writes properties first and the body last is served, and its job can be returned."""
    properties = {"delivery_tag": "t1", "delivery_info": {"exchange": "", "routing_key": "batch"}, "priority": 6}
    headers = {"id": "foreign", "task": "kit.job", "retries": 0, SUBMITTED_AT: 1.0}
    body = base64.b64encode(json.dumps([[FAKES * 50], {}, {}]).encode()).decode()
    message = {"properties": properties, "headers": headers, "content-type": "application/json", "body": body}
    client.lpush("batch", json.dumps(message))
    (held,) = hand.claim()
    assert held.tag == "t1"
    assert hand.give_back(held) == 1
    (held,) = hand.claim()
    assert (held.tag, held.message["body"]) == ("t1", body)
    assert hand.settle(held) == 1


@pytest.mark.parametrize(
    "text", [b"not json", b"{}", b"[1]", b'{"properties": []}', b'{"properties": {"delivery_tag": 7}}', b"\xff"]
)
def test_what_is_no_message_is_buried(lanes_app: Any, hand: Hand, client: Redis, text: bytes) -> None:
    """A text without a delivery tag goes to the dead letters with its reason, and the job behind it is claimed."""
    client.lpush("batch", text)
    put(lanes_app, "good", priority=0)
    assert hand.names() == ["good"]
    (tag,) = hand.dead()
    assert "undecodable" in hand.dead()[tag]
    assert client.hget("lanes:dead", tag) == text


def test_a_message_above_the_limit_is_buried(lanes_app: Any, client: Redis) -> None:
    """A job larger than the limit goes to the dead letters with its size; one at the limit is claimed."""
    put(lanes_app, "ok")
    size = len(client.lindex("batch\x06\x166", 0))
    lanes_app.send_task("kit.job", ("ok", "x" * 100), task_id="big", queue="batch", ignore_result=True)
    hand = Hand(client, max_bytes=size)
    assert hand.names() == ["ok"]
    (reason,) = hand.dead().values()
    assert "too large" in reason


def test_jobs_of_a_stock_worker_come_back_after_the_projects_own_timeout(lanes_app: Any, client: Redis) -> None:
    """What a stock worker took and never acknowledged is back by kombu's own means, and no earlier than it says."""
    lanes_app.conf.broker_transport_options = {"visibility_timeout": 7_200}
    put(lanes_app, "stock", queue="normal")
    text = client.rpop("normal\x06\x163").decode()
    tag = json.loads(text)["properties"]["delivery_tag"]
    client.hset("unacked", tag, json.dumps([json.loads(text), "normal", "normal"]))
    with lanes_app.connection_for_read() as connection:
        channel = connection.default_channel
        lanes_app.amqp.queues["normal"](channel).declare()
        for age, found in ((7_190, []), (7_210, ["stock"])):
            client.zadd("unacked_index", {tag: time.time() - age})
            channel.qos.restore_visible(interval=1)
            assert Hand(client).names() == found


def test_a_channel_whose_connection_is_lost_has_nothing_to_return(lanes_app: Any) -> None:
    """A worker that closes it must not connect anew for nothing: where that failed, the worker ended."""
    with lanes_app.connection_for_read() as connection:
        channel = connection.default_channel
        assert channel.client.ping()
        channel.connection.client, channel._pool = None, None
        assert channel.qos.restore_unacked() == []
        channel.connection.client = connection


def test_a_late_acknowledgement_says_nothing_of_the_next_delivery(lanes_app: Any, client: Redis) -> None:
    """A job that came back within milliseconds is held by its second claim, whatever becomes of the first delivery."""
    put(lanes_app, "j")
    with lanes_app.connection_for_write() as connection:
        channel = connection.default_channel
        first = channel.basic_get("batch")
        give_back(lanes_app, first.properties, delay=0.0, retries=1)
        second = channel.basic_get("batch")
        first.ack()
        assert client.hlen("lanes:claims") == 1
        assert channel.leases.holds(claim_of(second.delivery_tag)[0])
        second.ack()
    assert client.hlen("lanes:claims") == 0
    assert client.llen("batch\x06\x166") == 0
