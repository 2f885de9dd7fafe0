from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from broker_kit.hand import MAX_DEATHS, Hand

from celery_app.broker.dead_letters import dead_letters
from celery_app.scheduler.verbs import DONE_ENDED, PRESENT, TAKE_ENDED

if TYPE_CHECKING:
    from redis import Redis

#: As scheduler/scripts/lib/dead.lua has them.
KEPT_MS, MOST, MOST_BYTES = 7 * 86_400 * 1_000, 10_000, 256 * 1024 * 1024


@pytest.fixture
def client(valkey: Any, broker_url: str) -> Any:
    """A client of the empty broker."""
    assert broker_url
    with valkey.client() as client:
        yield client


def bury(app: Any, client: Redis, name: str, body: str = "") -> None:
    """Have one job claimed and buried."""
    app.send_task("kit.job", (body,), task_id=name, queue="batch", ignore_result=True)
    hand = Hand(client)
    (held,) = hand.claim()
    assert hand.bury(held, "a test's reason") == 1


def aged(client: Redis, ms: float) -> None:
    """Have all dead letters be older."""
    for name, died_at in client.zrange("lanes:dead", 0, -1, withscores=True):
        client.zadd("lanes:dead", {name: died_at - ms})


def buried_before(app: Any, client: Redis, count: int, ms: float) -> None:
    """Have dead letters from an earlier time, as many copies of one as are wanted."""
    bury(app, client, "one")
    facts, text = client.hget("lanes:jobs", "one"), client.hget("lanes:texts", "one")
    died_at = client.zscore("lanes:dead", "one")
    with client.pipeline(transaction=False) as pipe:
        pipe.delete("lanes:dead", "lanes:jobs", "lanes:texts")
        for n in range(count):
            pipe.hset("lanes:texts", f"old-{n:05}", text)
            pipe.hset("lanes:jobs", f"old-{n:05}", facts)
            pipe.zadd("lanes:dead", {f"old-{n:05}": died_at - ms + n})
        pipe.hset("lanes:dead_totals", mapping={"batch:dead": count, "bytes": count * len(text)})
        pipe.execute()


def sizes(client: Redis) -> list[int]:
    """Return how many dead letters each place knows of."""
    texts = client.hlen("lanes:texts") + len(client.keys("lanes:text:*"))
    return [client.zcard("lanes:dead"), client.hlen("lanes:jobs"), texts, total(client, "batch:dead")]


def total(client: Redis, name: str) -> int:
    """Return what the dead letters sum up to."""
    return int(client.hget("lanes:dead_totals", name) or 0)


def size_of(client: Redis, name: str) -> int:
    """Return the bytes of a dead letter."""
    return client.hstrlen("lanes:texts", name) + client.strlen(f"lanes:text:{name}")


def test_the_oldest_dead_letters_make_room(lanes_app: Any, client: Redis) -> None:
    """Beyond 10,000 the oldest goes with each that comes, is counted, and every place agrees on what is left."""
    buried_before(lanes_app, client, MOST, 60_000)
    for n in range(3):
        bury(lanes_app, client, f"new-{n}")
    assert sizes(client) == [MOST] * 4
    assert total(client, "dropped") == 3
    assert client.zrange("lanes:dead", 0, 0) == [b"old-00003"]
    assert client.zrange("lanes:dead", -3, -1) == [b"new-0", b"new-1", b"new-2"]


def test_old_dead_letters_go_by_themselves(lanes_app: Any, client: Redis) -> None:
    """After seven days they go with a worker's sign of life, a bounded number each time; younger ones stay."""
    buried_before(lanes_app, client, 150, KEPT_MS - 60_000)
    bury(lanes_app, client, "young")
    PRESENT.run(client, (), ("", "w@host", 15_000, "batch"))
    assert sizes(client) == [151] * 4
    aged(client, 120_000)
    PRESENT.run(client, (), ("", "w@host", 15_000, "batch"))
    assert 1 < client.zcard("lanes:dead") < 150
    PRESENT.run(client, (), ("", "w@host", 15_000, "batch"))
    assert sizes(client) == [1] * 4
    assert total(client, "dropped") == 150
    assert total(client, "bytes") == size_of(client, "young")


def test_dead_letters_are_bounded_by_bytes(lanes_app: Any, client: Redis) -> None:
    """Large ones are bounded by 256 MB together, however few they are; the newest always stays."""
    large = "x" * (30 * 1024 * 1024)
    for n in range(8):
        bury(lanes_app, client, f"large-{n}", large)
    assert sizes(client) == [6] * 4
    assert total(client, "dropped") == 2
    assert total(client, "bytes") == sum(letter.size for letter in dead_letters(client)) <= MOST_BYTES
    assert client.zrange("lanes:dead", -1, -1) == [b"large-7"]
    client.flushdb()


def test_no_dead_letter_goes_before_it_is_told(lanes_app: Any, client: Redis) -> None:
    """However large the others are: whoever waits for it would wait for ever. Once it is told, it makes room."""
    hand = Hand(client)
    for name in ("first", "second"):
        lanes_app.send_task("kit.job", task_id=name, queue="batch")
    client.hset("lanes:dead_totals", "bytes", 2 * MOST_BYTES)
    client.zadd("lanes:dead", {"nothing": 0})
    for _ in range(MAX_DEATHS):
        for held in hand.claim(2):
            hand.requeue(held, went_wrong=True)
    assert [row[0] for row in TAKE_ENDED.run(client, (), ("", 20, 60_000))] == [b"first", b"second"]
    DONE_ENDED.run(client, (), ("", "first"))
    PRESENT.run(client, (), ("", "w@host", 15_000, "batch"))
    assert client.zrange("lanes:dead", 0, -1) == [b"second"]


def test_a_dead_letters_id_may_be_used_again(lanes_app: Any, client: Redis) -> None:
    """The next job with the id of a dead one is a job of its own; two deaths make two dead letters."""
    for body in ("a", "a longer one"):
        bury(lanes_app, client, "again", body)
    assert sizes(client) == [2] * 4
    assert [letter.task_id for letter in dead_letters(client)] == ["again", "again"]
    assert total(client, "bytes") == sum(letter.size for letter in dead_letters(client))


def test_dead_letters_may_be_dropped_by_hand(lanes_app: Any, client: Redis) -> None:
    """The commands in our documentation make one or all too old: nothing of them is left."""
    for name in ("one", "two", "three"):
        bury(lanes_app, client, name, "x" * 1_000)
    client.zadd("lanes:dead", {"two": 0}, xx=True)
    PRESENT.run(client, (), ("", "w@host", 15_000, "batch"))
    assert client.zrange("lanes:dead", 0, -1) == [b"one", b"three"]
    assert sizes(client) == [2] * 4
    client.zunionstore("lanes:dead", {"lanes:dead": 0})
    PRESENT.run(client, (), ("", "w@host", 15_000, "batch"))
    assert sizes(client) == [0] * 4
    assert total(client, "bytes") == 0


def test_deleted_dead_letters_do_not_count(lanes_app: Any, client: Redis) -> None:
    """Whoever deletes their set has forgotten them: what comes after is counted from nothing."""
    bury(lanes_app, client, "one", "x" * 1_000)
    client.delete("lanes:dead")
    bury(lanes_app, client, "two")
    assert [letter.id for letter in dead_letters(client)] == ["two"]
    assert total(client, "batch:dead") == 1
    assert total(client, "bytes") == size_of(client, "two")


def test_the_newest_dead_letters_are_listed_with_what_they_were(lanes_app: Any, client: Redis) -> None:
    """Lane, task, id, reason, age and size, and nothing of the arguments; as many as are asked for."""
    for name in ("first", "second", "third"):
        bury(lanes_app, client, name, "a secret prompt")
    aged(client, 60_000)
    letters = dead_letters(client, most=2)
    assert [(letter.id, letter.task_id) for letter in letters] == [("third", "third"), ("second", "second")]
    assert {(letter.lane, letter.task, letter.reason) for letter in letters} == {
        ("batch", "kit.job", "a test's reason")
    }
    assert all(letter.size == size_of(client, letter.id) for letter in letters)
    assert all(60 <= letter.age_s < 120 for letter in letters)
    assert "secret" not in repr(letters)
