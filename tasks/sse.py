"""Server-sent events, as far as the Messages API uses them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_BOM = b"\xef\xbb\xbf"
_DATA, _EVENT = b"data:", b"event:"


class ServerEvent(NamedTuple):
    """One event.

    Attributes:
        name: what its line ``event:`` says; empty where it has none.
        data: its lines ``data:``; empty where it has none.
    """

    name: str
    data: bytes


class EventParser:
    """Takes bytes as they arrive and gives each event that is complete."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._at_start = True
        self._after_cr = False

    def feed(self, chunk: bytes) -> Iterator[ServerEvent]:
        """Yield each event that this chunk completes; comments, and blocks without name or data, are dropped."""
        # What has been looked at has no blank line, but the first half of one may be its last byte.
        start = max(0, len(self._rest) - 1)
        self._rest += self._with_plain_ends(chunk)
        while (end := self._rest.find(b"\n\n", start)) >= 0:
            block = bytes(self._rest[:end])
            del self._rest[: end + 2]
            start = 0
            yield from self._events_in(block)

    def finish(self) -> Iterator[ServerEvent]:
        """Yield the last event of a stream that has ended without the blank line behind it."""
        block = bytes(self._rest)
        self._rest.clear()
        yield from self._events_in(block)

    def _with_plain_ends(self, chunk: bytes) -> bytes:
        """Lines may end in LF, CR LF or CR, and a chunk may end between the two."""
        if not chunk:
            return chunk
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        self._after_cr = chunk.endswith(b"\r")
        # Within JSON a CR is always escaped.
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in chunk else chunk

    def _events_in(self, block: bytes) -> Iterator[ServerEvent]:
        if self._at_start:
            block, self._at_start = block.removeprefix(_BOM), False
        name, datas = b"", []
        for line in block.split(b"\n"):
            if line.startswith(_DATA):
                datas.append(line[len(_DATA) :].strip())
            elif line.startswith(_EVENT):
                name = line[len(_EVENT) :].strip()
        # JSON may break between its tokens only, where a blank is as good as a line's end.
        data = b" ".join(datas).strip()
        if name or data:
            yield ServerEvent(name.decode(errors="replace"), data)
