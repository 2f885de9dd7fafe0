"""read_requests: the requests in the body of a batch, read bit by bit: streams must not stand still for 256 MB."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any

from demo.simulator.faults import SimulatedError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_REQUESTS = 100_000  # of a batch (platform.claude.com, batch processing)
CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
CHUNK = 20  # requests read at a stretch: about a millisecond
# What comes before the first request, between two or behind the last, and at the very end.
BEGIN = re.compile(r'\s*{\s*"requests"\s*:\s*\[\s*')
NEXT = re.compile(r"\s*(?:,\s*(?!\])|(?=\]))")
END = re.compile(r"\]\s*}\s*$")

_decoder = json.JSONDecoder()


async def read_requests(body: bytes) -> dict[str, str]:
    """Give each request, as JSON, by its custom id; params are looked at when it is their turn, as the API does.

    JSON, because 100,000 requests in pieces would hold up the garbage collector, and all streams with it.

    Raises:
        SimulatedError: there are too few or too many, or a custom id is wrong or there twice.
        LookupError, TypeError, ValueError: it is no JSON, or of another form.
    """
    found: dict[str, str] = {}
    for number, (request, text) in enumerate(_items(body.decode())):
        if number == MAX_REQUESTS:
            raise SimulatedError(400, f"requests: has to have at most {MAX_REQUESTS} items")
        custom_id, params = request["custom_id"], request["params"]
        if not CUSTOM_ID.fullmatch(custom_id):
            raise SimulatedError(400, f"requests.{number}.custom_id: has to match ^{CUSTOM_ID.pattern}$")
        if custom_id in found:
            raise SimulatedError(400, f"requests.{number}.custom_id: {custom_id} is there twice")
        if not isinstance(params, dict):
            raise SimulatedError(400, f"requests.{number}.params: has to be an object")
        found[custom_id] = text
        if number % CHUNK == 0:
            await asyncio.sleep(0)
    if not found:
        raise SimulatedError(400, "requests: has to have at least 1 item")
    return found


def _items(text: str) -> Iterator[tuple[Any, str]]:
    position = _behind(BEGIN, text, 0)
    while text[position] != "]":
        request, end = _decoder.raw_decode(text, position)
        yield request, text[position:end]
        position = _behind(NEXT, text, end)
    _behind(END, text, position)


def _behind(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    if match is None:
        raise ValueError(f'{{"requests": [...]}} expected, and something else is at {position}')
    return match.end()
