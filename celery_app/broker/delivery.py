"""The way out of the broker: from a claim's reply to messages for kombu."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from kombu.utils.json import loads

from celery_app import tracing
from celery_app.broker import packet
from celery_app.broker.claimed import ClaimedJob
from celery_app.broker.claims import (
    CANCELLED,
    CLAIM_PROPERTY,
    QUEUE,
    REFUSED_AT,
    RESERVED_FOR,
    TICKET,
    TIMEOUTS,
    VERDICT,
    delivery_of,
)
from celery_app.broker.rules import LANE_NAMES
from celery_app.routing import DEADLINE_AT, SUBMITTED_AT, TENANT
from celery_app.traced import Traced

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from celery_app.broker.lease import Leases

_MS_PER_S = 1000


class Delivery:
    """The jobs of one claim on their way to the consumer.

    Whatever happens on the way, each is either delivered, returned or among the dead letters.
    """

    def __init__(self, rows: list[Any], token: str, held: frozenset[str], leases: Leases) -> None:
        """Take responsibility for the jobs in a reply.

        Args:
            rows: of the script's reply, one for each job.
            token: of the claim.
            held: queues whose jobs are held under a lease.
            leases: of this process.
        """
        self._token = token
        self._leases = leases
        self._held = held
        self._jobs = [ClaimedJob.of(row) for row in rows]
        for job in self._jobs:
            if job.queue in held:
                leases.register(job.id, token, suspect=job.suspect)

    def __len__(self) -> int:
        return len(self._jobs)

    def messages(self, read_text: Callable[[str], bytes | None]) -> Generator[tuple[str, dict[str, Any]]]:
        """Yield queue and message of each job that is to be worked on now; what is not taken goes back.

        Args:
            read_text: returns the text of a job that has a key of its own.
        """
        remaining = list(reversed(self._jobs))
        try:
            while remaining:
                job = remaining[-1]
                message = self._message(job, read_text(job.id) if job.text is None else job.text)
                if message is not None:
                    yield job.queue, message
                remaining.pop()  # only now: a consumer that failed has not taken it
        finally:
            self._leases.requeue_all((job.id, self._token) for job in remaining)

    def requeue(self) -> None:
        """Return all jobs; for a channel that closes."""
        self._leases.requeue_all((job.id, self._token) for job in self._jobs)

    def _message(self, job: ClaimedJob, text: bytes | None) -> dict[str, Any] | None:
        size = len(text or b"")
        if job.queue in LANE_NAMES and size > packet.MAX_MESSAGE_BYTES:
            self._leases.dead_letter(
                job.id, self._token, f"too large: {size} bytes"
            )  # of a stock producer: ours are refused where they are sent
            return None
        try:
            message: dict[str, Any] = loads((text or b"").decode())
            properties, headers = message["properties"], message["headers"]
            properties.update({CLAIM_PROPERTY: self._token, QUEUE: job.queue})
            properties["delivery_tag"] = delivery_of(job.id, self._token)
            if job.queue in LANE_NAMES:
                _check_eta(headers)
                properties.update({CANCELLED: job.cancelled, VERDICT: job.verdict})
                properties.update({TICKET: job.ticket, RESERVED_FOR: job.model})
                headers.update(_told(job))
                tracing.claimed(_traced(job, headers), headers, properties, job.queued_ms)
            if job.out:
                _tell_of_redelivery(message)
        except Exception as exc:  # noqa: BLE001 - whatever it is: it would end this worker, and then the next
            self._leases.dead_letter(job.id, self._token, f"undecodable: {type(exc).__name__}")
            return None
        return message


def _told(job: ClaimedJob) -> dict[str, Any]:
    """Return what the scheduler knows of a job, in place of what its producer said; times by this machine's clock."""
    now = time.time()
    times = {SUBMITTED_AT: now - job.waited_ms / _MS_PER_S}
    if job.left_ms >= 0:
        times[DEADLINE_AT] = now + job.left_ms / _MS_PER_S
    return {**times, "eta": None, "retries": job.tries, TIMEOUTS: job.timeouts, REFUSED_AT: job.refused_at}


def _traced(job: ClaimedJob, headers: dict[str, Any]) -> Traced:
    task, task_id, tenant = (packet.word(headers.get(name)) for name in ("task", "id", TENANT))
    return Traced(job.queue, task, task_id, job.model, tenant, job.tries + 1)


def _check_eta(headers: dict[str, Any]) -> None:
    """Refuse an ETA that makes no sense; one that made sense was taken out on the way in."""
    if headers.get("eta"):
        raise ValueError


def _tell_of_redelivery(message: dict[str, Any]) -> None:
    info = message["properties"].get("delivery_info")
    if isinstance(info, dict):
        info["redelivered"] = True
    message["headers"]["redelivered"] = True
