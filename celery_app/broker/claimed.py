"""What the scheduler tells of a job that it hands out."""

from __future__ import annotations

from typing import Any, NamedTuple


class ClaimedJob(NamedTuple):
    """A job as ``scheduler/scripts/claim.lua`` tells of it.

    Attributes:
        queue: where it was claimed from.
        id: of its record.
        text: its message; None: it has a key of its own.
        cancelled: whether it was cancelled while it was queued.
        tries: failed attempts so far.
        out: whether a worker had it before.
        waited_ms: since its submission, or since the time that it was scheduled for.
        left_ms: until its deadline; -1: it has none.
        timeouts: calls that took all of their time.
        refused_at: µs, by Redis' clock, at which its last call left that the API refused for now; 0: none was.
        model: that it said it would call, or that its last call found no room for.
        ticket: of what was reserved for that; empty for none.
        verdict: why it can only fail: ``account <reason>`` or ``large <tokens> <limit>``; ``answered``: its answer has
            come with a shipment; empty otherwise.
        suspect: whether it was in hand when processes died; no process gets two of these at a time.
        queued_ms: that it was queued for and could have started: since its submission, its time, or its return.
    """

    queue: str
    id: str
    text: bytes | None
    cancelled: bool
    tries: int
    out: bool
    waited_ms: int
    left_ms: int
    timeouts: int
    refused_at: int
    model: str
    ticket: str
    verdict: str
    suspect: bool
    queued_ms: int

    @classmethod
    def of(cls, row: list[Any]) -> ClaimedJob:
        """Read one row of the script's reply."""
        queue, own, text, cancelled, tries, out, waited, left, timeouts, refused_at, *rest = row
        model, ticket, verdict, suspect, queued_ms = rest
        return cls(
            queue.decode(),
            own.decode(),
            text,
            bool(cancelled),
            tries,
            bool(out),
            waited,
            left,
            timeouts,
            int(float(refused_at)),
            model.decode(),
            ticket.decode(),
            verdict.decode(),
            bool(suspect),
            queued_ms,
        )
