"""What stock producers leave in the lanes' lists: it is taken into the lanes, where the scheduler sees it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from celery_app.broker.packet import Packet, packet_of, word
from celery_app.broker.publisher import upload_of
from celery_app.keys import ARRIVED, UPLOAD_KEPT
from celery_app.scheduler.scripts import PUBLISH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import redis

#: Messages taken in at once at most, and their bytes but for the last: a worker has jobs to look after.
MOST_MESSAGES, MOST_BYTES = 20, 1_000_000

#: What an empty message becomes: a job has a text.
_NOTHING = b" "


def take_in(client: redis.Redis, prefix: str, lane: str, lists: Iterable[str], step_of: Callable[[Any], int]) -> None:
    """Take the next messages in a lane's lists into its lines.

    Any number of workers may do so at once, and any of them may die: a message is in a list until its job is in its
    line, and a job enters its line once. The one comes after the other, not in one transaction with it: of that, a
    server that is full refuses what adds, and does what removes.

    Args:
        client: without a key prefix of its own.
        prefix: of all keys.
        lane: its name.
        lists: its lists, without the prefix, most important first.
        step_of: returns the priority step of a message.

    Raises:
        redis.exceptions.RedisError: if Redis is away or full; what is not taken in stays where it was.
    """
    arrived = ARRIVED.of(prefix, lane)
    _collect(client, arrived, (f"{prefix}{each}" for each in lists))
    for text in _texts(client.lrange(arrived, -MOST_MESSAGES, -1)):
        _enter(client, prefix, lane, arrived, text, step_of)


def _collect(client: redis.Redis, arrived: str, lists: Iterable[str]) -> None:
    room, size = MOST_MESSAGES - int(client.llen(arrived)), 0
    for each in lists:
        while room > 0 and size < MOST_BYTES:
            text: Any = client.lmove(each, arrived, "RIGHT", "LEFT")
            if text is None:
                break
            room, size = room - 1, size + len(text)


def _texts(found: Any) -> list[bytes]:
    return list(reversed(found))


def _enter(
    client: redis.Redis, prefix: str, lane: str, arrived: str, text: bytes, step_of: Callable[[Any], int]
) -> None:
    packet = _packet(text, step_of)
    # The same for each worker that has the message in hand; its text, for a message without a tag of its own.
    token = packet.token or packet.id
    upload = upload_of(prefix, packet)
    if upload is not None:
        client.set(*upload, ex=UPLOAD_KEPT)
    PUBLISH.run(client, (), packet.submission(prefix, lane, token=f"arrived:{token}"))
    client.lrem(arrived, -1, text)  # type: ignore[arg-type]


def _packet(text: bytes, step_of: Callable[[Any], int]) -> Packet:
    """Read a message; one that nobody can read, or that is too large, is for a worker to dead-letter, who says why."""
    try:
        message = json.loads(text)
        token = word(message["properties"].get("delivery_tag")) or _digest(text)
        packet = packet_of(message, step_of(message), bounded=False)._replace(token=token)
        packet.arguments()  # a header that no script could take raises here
    except Exception:  # noqa: BLE001 - whatever it is
        return Packet(_digest(text), text or _NOTHING, 0, {}, "", 0.0)
    return packet


def _digest(text: bytes) -> str:
    import hashlib

    return f"unreadable-{hashlib.sha256(text).hexdigest()[:16]}"
