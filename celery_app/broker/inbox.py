"""The way out of the broker: from a claim's reply to messages for kombu."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kombu.utils.json import loads

from celery_app.broker.claims import CANCELLED, CLAIM, QUEUE, delivery_of
from celery_app.broker.dead_letters import say_buried
from celery_app.broker.notes import take_notes
from celery_app.broker.rules import LANE_NAMES

if TYPE_CHECKING:
    from collections.abc import Generator

    from celery_app.broker.lease import Leases

#: Key in a message's delivery info; scripts/message.lua writes it.
RETRIES = "lanes_retries"


class Claimed:
    """The jobs of one claim on their way to the consumer.

    Whatever happens on the way, each is either delivered, returned or among the dead letters.
    """

    def __init__(self, reply: list[Any], token: str, held: frozenset[str], leases: Leases) -> None:
        """Take responsibility for the jobs in a reply.

        Args:
            reply: of the script: ms until the next return is due or -1, then for each job its queue, its tag, whether
                it was cancelled, and its text.
            token: of the claim.
            held: queues whose jobs are held under a lease.
            leases: of this process.
        """
        self.next_due_ms = int(reply[0])
        self._token = token
        self._leases = leases
        parts = iter(reply[1:])
        self._jobs = [
            (queue.decode(), tag.decode(), cancelled, text)
            for queue, tag, cancelled, text in zip(parts, parts, parts, parts, strict=True)
        ]
        self._held = held
        for queue, tag, _, _ in self._jobs:
            if queue in held:
                leases.hold(tag, token)

    def __len__(self) -> int:
        """Return how many jobs were claimed."""
        return len(self._jobs)

    def messages(self) -> Generator[tuple[str, dict[str, Any]]]:
        """Yield queue and message of each job that is to be worked on now; what is not taken goes back."""
        remaining = list(reversed(self._jobs))
        try:
            while remaining:
                queue, tag, cancelled, text = remaining[-1]
                message = self._message(queue, tag, cancelled, text)
                if message is not None:
                    yield queue, message
                remaining.pop()  # only now: a consumer that failed has not taken it
        finally:
            self._leases.give_back_all((tag, self._token) for _, tag, _, _ in remaining)

    def give_back(self) -> None:
        """Return all jobs; for a channel that closes."""
        self._leases.give_back_all((tag, self._token) for _, tag, _, _ in self._jobs)

    def _message(self, queue: str, tag: str, cancelled: bytes, text: bytes) -> dict[str, Any] | None:
        try:
            message: dict[str, Any] = loads(text.decode())
            message["properties"].update({CLAIM: self._token, QUEUE: queue})
            message["properties"]["delivery_tag"] = delivery_of(tag, self._token)
            if cancelled:
                message["properties"][CANCELLED] = cancelled == b"1"
            _take_retries(message)
            take_notes(message)
            due_in = _take_eta(message) if queue in LANE_NAMES and queue in self._held else 0.0
            if queue not in LANE_NAMES:
                # A project's own queue keeps its ETA for Celery's worker, and says what kombu says.
                _tell_of_redelivery(message)
        except (ValueError, TypeError, LookupError, AttributeError) as exc:
            reason = f"undecodable: {type(exc).__name__}"
            say_buried(queue, "?", tag, reason)
            self._leases.give_up(tag, self._token, reason)
            return None
        if due_in > 0:
            # A worker would keep it in its own memory, past its prefetch limit, and run it ahead of everything.
            self._leases.give_back(tag, self._token, delay=due_in)
            return None
        return message


def _take_retries(message: dict[str, Any]) -> None:
    """Put the number of retries that a return noted where Celery looks for it."""
    retries = (message["properties"].get("delivery_info") or {}).pop(RETRIES, None)
    if retries is not None:
        message["headers"]["retries"] = retries


def _tell_of_redelivery(message: dict[str, Any]) -> None:
    """Say in the headers, too, that a message was delivered before."""
    if (message["properties"].get("delivery_info") or {}).get("redelivered"):
        message["headers"]["redelivered"] = True


def _take_eta(message: dict[str, Any]) -> float:
    """Remove the ETA from a message and return the seconds until then, 0 where there is none."""
    headers = message.get("headers") or {}
    eta = headers.get("eta")
    if not eta:
        return 0.0
    headers["eta"] = None
    return max(0.0, (_utc(eta) - datetime.now(UTC)).total_seconds())


def take_not_before(headers: dict[str, Any]) -> int:
    """Remove the ETA from the headers of a message and return it in ms since the epoch, 0 where there is none."""
    eta = headers.get("eta")
    if not eta:
        return 0
    headers["eta"] = None
    return round(_utc(eta).timestamp() * 1000)


def _utc(eta: str) -> datetime:
    when = datetime.fromisoformat(eta)
    return when if when.tzinfo else when.replace(tzinfo=UTC)
