"""What a batch is created with: a request for each job of a shipment, written to a file and sent from there."""

from __future__ import annotations

import json
import tempfile
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from celery_app.broker.body import read_body
from celery_app.budget.shippable import BESIDE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from celery_app.broker.shipments import Shipment, Shipments

#: Bytes of requests that stay in memory; more of them go to a file.
_IN_MEMORY = 8_000_000

#: Plain: what it encodes came as JSON.
_encode = json.JSONEncoder(separators=(",", ":")).encode


@contextmanager
def requests_of(shipments: Shipments, shipment: Shipment) -> Iterator[tuple[IO[bytes], int]]:
    """Give the body that creates a shipment's batch, and how many requests it has.

    Jobs of which nobody can read the message go live: a worker says what is wrong with them.

    Raises:
        HelmLost: another worker ships the lane's jobs.
    """
    with tempfile.SpooledTemporaryFile(_IN_MEMORY) as body:
        requests = 0
        body.write(b'{"requests":[')
        for number, params in _calls(shipments, shipment):
            request = {"custom_id": custom_id(shipment, number), "params": params}
            body.write(b"," * bool(requests) + _encode(request).encode())
            requests += 1
        body.write(b"]}")
        yield body, requests


def custom_id(shipment: Shipment, number: int) -> str:
    """Return the id of a job's request: letters, digits and hyphens, 64 at most, as the API wants it."""
    return f"{shipment.id}-{number}"


def number_of(shipment: Shipment, custom: Any) -> int | None:
    """Return the number of the job that a request's id is of; None: it is of no job of this shipment."""
    own, _, number = str(custom).rpartition("-")
    return int(number) if own == shipment.id and number.isascii() and number.isdigit() else None


def _calls(shipments: Shipments, shipment: Shipment) -> Iterator[tuple[int, Mapping[str, Any]]]:
    after = 0
    while cargo := shipments.cargo(shipment, after):
        unread = []
        for (number, _), text in zip(cargo, shipments.texts([own for _, own in cargo]), strict=True):
            params = _params(text)
            if params is None:
                unread.append((number, ""))
            else:
                yield number, params
        if unread:
            shipments.land(shipment, unread)
        after = cargo[-1][0]


def _params(text: bytes | None) -> dict[str, Any] | None:
    """Return the parameters of a job's call as the API takes them; None: nobody can read them."""
    try:
        kwargs = read_body(json.loads(text or b"")).kwargs
    except (ValueError, LookupError, TypeError):
        return None
    extra = kwargs.pop("extra_body", None) or {}
    for beside in BESIDE:
        kwargs.pop(beside, None)  # empty: it would not be here
    return {**kwargs, **extra}
