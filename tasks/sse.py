"""Server-sent events, as far as the Messages API uses them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_DATA = b"data:"


class EventParser:
    """Takes bytes as they arrive and gives the data of each event that is complete."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._rest = b""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the data of each event that this chunk completes; events without data (comments) are dropped."""
        if b"\r" in chunk:
            # Lines may end in CR LF; within JSON a CR is always escaped.
            chunk = chunk.replace(b"\r", b"")
        *blocks, self._rest = (self._rest + chunk).split(b"\n\n")
        for block in blocks:
            data = _data_of(block)
            if data:
                yield data


def _data_of(block: bytes) -> bytes:
    lines = [line[len(_DATA) :].strip() for line in block.split(b"\n") if line.startswith(_DATA)]
    return b" ".join(lines)  # JSON may break between its tokens only, where a blank is as good as a line's end
