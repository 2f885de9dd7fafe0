"""What of a batch goes in one round trip."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from celery_app.broker.packet import Packet

#: Jobs in one round trip at most: the server is busy with them for 2 ms, which is what a critical job that arrives
#: meanwhile has to wait.
MOST_JOBS = 100

#: Bytes in one round trip at most, but for a single job that is larger.
MOST_BYTES = 1_000_000


def chunks(packets: Iterable[Packet]) -> Iterator[list[Packet]]:
    """Put jobs together for a round trip each; one with a large text goes alone, since that goes before it."""
    chunk: list[Packet] = []
    size = 0
    for packet in packets:
        more = len(packet.text)
        if chunk and (len(chunk) >= MOST_JOBS or size + more > MOST_BYTES or packet.is_large or chunk[-1].is_large):
            yield chunk
            chunk, size = [], 0
        chunk.append(packet)
        size += more
    if chunk:
        yield chunk
