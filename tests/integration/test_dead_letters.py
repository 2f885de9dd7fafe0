from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from broker_kit.hand import Hand

from celery_app.presence import PRESENT

if TYPE_CHECKING:
    from redis import Redis

#: As scripts/dead.lua has them.
KEPT_MS, MOST, MOST_BYTES = 7 * 86_400 * 1_000, 10_000, 256 * 1024 * 1024


@pytest.fixture
def client(valkey: Any, broker_url: str) -> Any:
    """A client of the empty broker."""
    assert broker_url
    with valkey.client() as client:
        yield client


def bury(client: Redis, name: str, body: str = "") -> None:
    """Have one job claimed and given up."""
    properties = {"delivery_tag": name, "correlation_id": name}
    client.lpush("batch", json.dumps({"body": body, "headers": {"id": name}, "properties": properties}))
    hand = Hand(client, max_bytes=64 * 1024 * 1024)
    (held,) = hand.claim()
    assert hand.give_up(held, "a test's reason") == 1


def buried_before(client: Redis, count: int, at_ms: float, text: str = "{}") -> None:
    """Have dead letters from an earlier time, as the script writes them."""
    with client.pipeline(transaction=False) as pipe:
        for n in range(count):
            pipe.hset("lanes:dead", f"old-{n:05}", text)
            pipe.hset("lanes:dead_reasons", f"old-{n:05}", "normal|a reason")
            pipe.zadd("lanes:dead_index", {f"old-{n:05}": at_ms + n})
        pipe.hset("lanes:dead_lanes", "normal", count)
        pipe.hset("lanes:dead_totals", "bytes", count * len(text))
        pipe.execute()


def sizes(client: Redis) -> list[int]:
    """Return how many dead letters each place knows of."""
    counts = [client.hlen("lanes:dead"), client.hlen("lanes:dead_reasons"), client.zcard("lanes:dead_index")]
    return [*counts, sum(int(count) for count in client.hvals("lanes:dead_lanes"))]


def dropped(client: Redis) -> int:
    """Return how many were dropped."""
    return int(client.hget("lanes:dead_totals", "dropped") or 0)


def test_the_oldest_dead_letters_make_room(client: Redis) -> None:
    """Beyond 10,000 the oldest goes with each that comes, is counted, and every place agrees on what is left."""
    buried_before(client, MOST, time.time() * 1000 - 60_000)
    for n in range(3):
        bury(client, f"new-{n}")
    assert sizes(client) == [MOST] * 4
    assert dropped(client) == 3
    assert not any(client.hexists("lanes:dead", f"old-{n:05}") for n in range(3))
    assert client.hexists("lanes:dead", "old-00003")
    assert client.hget("lanes:dead_lanes", "batch") == b"3"


def test_old_dead_letters_go_by_themselves(client: Redis) -> None:
    """After seven days they go with a worker's sign of life, a bounded number each time; younger ones stay."""
    buried_before(client, 150, time.time() * 1000 - KEPT_MS - 1_000)
    bury(client, "young")
    for _ in range(2):
        PRESENT.run(client, (), ("", "w@host", 15_000, 10, "batch"))
    assert sizes(client) == [1] * 4
    assert dropped(client) == 150
    assert client.hget("lanes:dead_totals", "bytes") == str(client.hstrlen("lanes:dead", "young")).encode()


def test_dead_letters_are_bounded_by_bytes(client: Redis) -> None:
    """Large ones are bounded by 256 MB together, however few they are; the newest always stays."""
    large = "x" * (40 * 1024 * 1024)
    for n in range(8):
        bury(client, f"large-{n}", large)
    assert sizes(client) == [6] * 4
    assert dropped(client) == 2
    assert int(client.hget("lanes:dead_totals", "bytes") or 0) <= MOST_BYTES
    client.flushdb()


def test_a_job_that_dies_again_is_one_dead_letter(client: Redis) -> None:
    """Its newest death counts; its bytes do so once."""
    for body in ("a", "a longer one"):
        bury(client, "again", body)
    assert sizes(client) == [1] * 4
    assert client.hget("lanes:dead_totals", "bytes") == str(client.hstrlen("lanes:dead", "again")).encode()


def test_dead_letters_deleted_by_hand_are_forgotten(client: Redis) -> None:
    """The command in our documentation leaves nothing that counts against what comes after."""
    bury(client, "one", "x" * 1_000)
    client.delete("lanes:dead", "lanes:dead_reasons", "lanes:dead_index", "lanes:dead_lanes")
    bury(client, "two")
    assert sizes(client) == [1] * 4
    assert client.hget("lanes:dead_totals", "bytes") == str(client.hstrlen("lanes:dead", "two")).encode()
