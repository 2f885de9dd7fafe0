"""A job on its way into a lane: its facts, which the scheduler's scripts read, and its text, which they do not."""

from __future__ import annotations

import json
import time
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from kombu.utils.json import dumps

from celery_app.errors import JobTooLarge
from celery_app.jobs.headers import BATCH_HEADER, PUBLISH_HEADER
from celery_app.jobs.identity import LONGEST_KEPT
from celery_app.keys import PUBLISHED_KEPT, STREAM_KEPT_QUEUED
from celery_app.routing import CAP, COST, DEADLINE_AT, MODEL, PREFIX, SUBMITTED_AT, TENANT, UNIQUE, UNIQUE_FOR, seconds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery_app.budget.cost import Cost

#: Bytes that a job may have: the API takes requests of 32 MB, of which kombu's base64 makes a third more.
MAX_MESSAGE_BYTES = 44 * 1024 * 1024

#: Bytes from which on a text goes beside the script, not through it: a script's time must not grow with its text.
LARGE = 64 * 1024

#: Characters of a token, a model, a tenant, a task or an id at most: a foreign producer's header may be anything.
LONGEST = 256

#: Retries that a header may speak of: what goes beyond makes no sense.
MOST_RETRIES = 1_000_000

#: Headers that are facts of the submission and nothing to a worker.
_TAKEN_OUT = (PUBLISH_HEADER, UNIQUE, UNIQUE_FOR, COST, CAP)

_MS_PER_S = 1000

#: What the scripts take for "not said".
UNKNOWN = -1

#: In place of a capacity: the job goes in, whatever the lane is like.
NO_CAPACITY = -1


#: Headers that are names, in the scripts' order.
_NAMES = (MODEL, TENANT, "task", "id", BATCH_HEADER)

#: Plain: it encodes numbers and texts of ours.
_encode = json.JSONEncoder(separators=(",", ":")).encode


class Packet(NamedTuple):
    """A job as it goes into a lane.

    Attributes:
        id: its id, or its delivery tag where it has none.
        text: its message; the message that it was made from is as it was.
        step: priority step.
        headers: of the message as it was sent.
        token: of the submission; empty where its producer gives none.
        not_before: seconds since the epoch, by this machine's clock, before which it must not start; 0: at once.
    """

    id: str
    text: bytes
    step: int
    headers: Mapping[str, Any]
    token: str
    not_before: float

    def arguments(self) -> list[Any]:
        """Return it as ``scheduler/scripts/lib/enter.lua`` has it, with times as durations from now on."""
        headers, now = self.headers, time.time()
        deadline, kept = seconds(headers.get(DEADLINE_AT)), seconds(headers.get(UNIQUE_FOR))
        text: bytes = b"" if self.is_large else self.text
        facts = [
            self.id,
            self.step,
            *[word(headers.get(name)) for name in _NAMES],
            _ms(now - (seconds(headers.get(SUBMITTED_AT)) or now)),
            UNKNOWN if deadline is None else _ms(deadline - now),
            _ms(self.not_before - now),
            *cost_arguments(headers.get(COST)),
            _retries(headers),
            _unique_name(headers),
            min(_ms(kept or 0), LONGEST_KEPT * _MS_PER_S),
        ]
        money, prefix = money_arguments(headers), word(headers.get(PREFIX))
        more = [*(money or (0, 0)), prefix] if prefix else money
        return [text, _encode([*facts, *more])]

    def submission(
        self,
        prefix: str,
        lane: str,
        capacity: int = NO_CAPACITY,
        *,
        token: str = "",
        stream: str = "",
        event: tuple[str, str] = ("", ""),
    ) -> list[Any]:
        """Return the arguments of ``scheduler/scripts/publish.lua``.

        Args:
            prefix: of all keys.
            lane: where it goes.
            capacity: of the lane.
            token: under which it is queued once; empty: each time.
            stream: key of its stream behind the prefix; empty: it has none.
            event: channel and text of the event that tells of it.
        """
        return [prefix, lane, capacity, token, PUBLISHED_KEPT, stream, STREAM_KEPT_QUEUED, *event, *self.arguments()]

    @property
    def is_large(self) -> bool:
        """Whether its text goes beside the script."""
        return len(self.text) > LARGE


def packet_of(message: Mapping[str, Any], step: int, *, bounded: bool = True) -> Packet:
    """Make a message of kombu's into a job for a lane.

    kombu makes a repetition from the same headers, so they have to stay as they are.

    Args:
        message: as kombu has it.
        step: priority step.
        bounded: whether to refuse one that is too large.

    Raises:
        JobTooLarge: no worker would take it.
    """
    headers = message.get("headers") or {}
    eta = headers.get("eta")
    kept = {name: value for name, value in headers.items() if name not in _TAKEN_OUT}
    if eta:
        kept["eta"] = None
    text = dumps({**message, "headers": kept}).encode()
    if bounded and len(text) > MAX_MESSAGE_BYTES:
        raise JobTooLarge(size=len(text), most=MAX_MESSAGE_BYTES)
    own = word(headers.get("id")) or word(message["properties"].get("delivery_tag")) or uuid.uuid4().hex
    return Packet(own, text, step, headers, word(headers.get(PUBLISH_HEADER)), _timestamp(eta) if eta else 0.0)


def cost_header(cost: Cost) -> list[int]:
    """Return a cost as a header of a job; money comes last, where there is a price."""
    output, most = (UNKNOWN if tokens is None else tokens for tokens in (cost.output_tokens, cost.max_tokens))
    known = [cost.requests, cost.input_tokens, cost.characters, output, most, int(not cost.cached)]
    return [*known, cost.usd] if cost.usd else known


def cost_arguments(header: Any) -> list[float]:
    """Return the cost in a header as the scripts take it; one that makes no sense reserves nothing."""
    amounts = header[: len(_NO_COST)] if type(header) is list else []
    return amounts if len(amounts) == len(_NO_COST) and all(map(_is_amount, amounts)) else list(_NO_COST)


def money_arguments(headers: Mapping[str, Any]) -> list[int]:
    """Return what a job costs and what its batch may, in nanodollars, as scripts take it; nothing if nobody says."""
    cost = headers.get(COST)
    usd = cost[len(_NO_COST)] if type(cost) is list and len(cost) == len(_NO_COST) + 1 else 0
    money = [
        value if type(value) is int and 0 <= value <= _MOST_NANODOLLARS else 0 for value in (usd, headers.get(CAP))
    ]
    return money if any(money) else []


def _is_amount(part: Any) -> bool:
    return type(part) in {int, float} and UNKNOWN <= part <= _MOST


#: More than a job can have of anything: it has fewer bytes.
_MOST = 1e9

#: A million dollars: numbers up to there are exact in Lua, sums of a thousand such, too.
_MOST_NANODOLLARS = 10**15

_NO_COST = (0, 0, 0, UNKNOWN, UNKNOWN, 0)


def word(value: Any) -> str:
    """Return a header as a name; a stock producer may have written anything."""
    if not isinstance(value, str) or len(value) > LONGEST:
        return ""
    return value if value.isascii() or is_text(value) else ""


def is_text(value: Any) -> bool:
    """Whether it is a text that can be written in UTF-8, which half of a pair of surrogates cannot."""
    return isinstance(value, str) and value.encode(errors="ignore").decode() == value


def _retries(headers: Mapping[str, Any]) -> int:
    retries = headers.get("retries")
    return retries if type(retries) is int and 0 < retries <= MOST_RETRIES else 0


def _unique_name(headers: Mapping[str, Any]) -> str:
    """Return the name under which a job is the only one; the length keeps one tenant's names from another's."""
    task, tenant, unique = (word(headers.get(name)) for name in ("task", TENANT, UNIQUE))
    return f"{task}:{len(tenant)}:{tenant}:{unique}" if unique else ""


def _ms(duration: float) -> int:
    return max(0, round(duration * _MS_PER_S))


def _timestamp(eta: str) -> float:
    when = datetime.fromisoformat(eta)
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
