"""The API's Message Batches, called on the worker's loop with the lane's key."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import IO, TYPE_CHECKING, Any

from tasks.clients import call_timeout, client_for, unlogged
from tasks.loop import run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

#: Seconds that a call about a batch may take, and those that may take for a body of 256 MB to be sent.
CALL_SECONDS, SEND_SECONDS = 60.0, 900.0

#: Lines of results that are read at once, and bytes: one answer may have megabytes.
MOST_LINES, MOST_READ = 50, 1_000_000

_PATH = "/v1/messages/batches"

#: Bytes that are sent at a stretch.
_PART = 256 * 1024

#: Batches on a page of the list.
_PAGE = 100

#: How the SDK is asked for an answer that is read piece by piece.
_STREAMED = {"X-Stainless-Raw-Response": "stream", "Accept": "application/binary"}


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as the API tells of it.

    Attributes:
        id: the API's.
        ended: whether its results are there.
        requests: that it has.
        created_at: seconds since the epoch, by the API's clock.
    """

    id: str
    ended: bool
    requests: int
    created_at: float

    @classmethod
    def of(cls, body: Any) -> Batch:
        """Read it from the API's JSON.

        Raises:
            LookupError, TypeError, ValueError: it is none.
        """
        created = datetime.fromisoformat(body["created_at"]).timestamp()
        return cls(str(body["id"]), body["processing_status"] == "ended", sum(body["request_counts"].values()), created)


class MessageBatches:
    """The batches of one API key.

    Every method raises what the SDK does, `tasks.loop.OutOfTime`, and LookupError, TypeError or ValueError for an
    answer that is none.
    """

    def __init__(self, api_key: str, base_url: str) -> None:
        self._key, self._url = api_key, base_url

    def create(self, body: IO[bytes]) -> Batch:
        """Create a batch; the body is sent as it is read."""
        size = body.seek(0, os.SEEK_END)
        body.seek(0)
        headers = {"Content-Type": "application/json", "Content-Length": str(size)}
        return Batch.of(self._ask("post", _PATH, SEND_SECONDS, content=_parts_of(body), headers=headers))

    def retrieve(self, batch: str) -> Batch:
        """Ask how a batch is."""
        return Batch.of(self._ask("get", f"{_PATH}/{batch}"))

    def cancel(self, batch: str) -> None:
        """Have a batch end as soon as may be; what it has been answered stays."""
        self._ask("post", f"{_PATH}/{batch}/cancel")

    def since(self, moment: float) -> Iterator[Batch]:
        """Yield the batches that were created after a moment by the API's clock, the last one first."""
        query: dict[str, Any] = {"limit": _PAGE}
        while True:
            page = self._ask("get", _PATH, params=query)
            found = [Batch.of(each) for each in page["data"]]
            yield from (each for each in found if each.created_at >= moment)
            if not page.get("has_more") or not found or found[-1].created_at < moment:
                return
            query["after_id"] = found[-1].id

    def results(self, batch: str) -> Iterator[list[dict[str, Any]]]:
        """Yield the results of a batch that has ended, some at a time, as they are read; in any order."""
        opened = self._on_loop(partial(self._open, f"{_PATH}/{batch}/results"))
        lines = opened.aiter_lines()
        try:
            while some := self._on_loop(partial(_next_lines, lines)):
                yield [json.loads(line) for line in some]
        finally:
            self._on_loop(opened.aclose)

    async def _open(self, path: str) -> Any:
        import httpx2

        options: Any = {"headers": _STREAMED}
        return await client_for(self._key, self._url).get(path, cast_to=httpx2.Response, options=options)

    def _ask(self, method: str, path: str, seconds: float = CALL_SECONDS, **options: Any) -> Any:
        return json.loads(self._on_loop(partial(self._send, method, path, seconds, options), seconds))

    async def _send(self, method: str, path: str, seconds: float, options: dict[str, Any]) -> bytes:
        import httpx2

        client = client_for(self._key, self._url)
        content = {"content": options.pop("content")} if "content" in options else {}
        options["timeout"] = call_timeout(seconds)
        send: Any = getattr(client, method)
        response: httpx2.Response = await send(path, cast_to=httpx2.Response, options=options, **content)
        return response.content

    def _on_loop(self, call: Callable[[], Any], seconds: float = CALL_SECONDS) -> Any:
        with unlogged():
            return run(call, seconds)


async def _parts_of(body: IO[bytes]) -> AsyncIterator[bytes]:
    while part := body.read(_PART):
        yield part


async def _next_lines(lines: AsyncIterator[str]) -> list[str]:
    """Return the next lines that are not empty; none: there are no more."""
    found: list[str] = []
    size = 0
    async for line in lines:
        if line.strip():
            found.append(line)
            size += len(line)
        if len(found) >= MOST_LINES or size >= MOST_READ:
            break
    return found
