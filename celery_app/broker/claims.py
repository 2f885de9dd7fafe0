"""How a delivered job says that it is held: light, because tasks ask in processes without a broker, too."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Property of a delivered message with the token of its claim; it exists in the worker only.
CLAIM_PROPERTY = "lanes_claim"

#: Likewise, with whether the job had been cancelled when it was claimed.
CANCELLED = "lanes_cancelled"

#: Likewise, with the ticket of what was reserved for it, empty: nothing was; and the model whose budget that is, which
#: need not be the one that it said it would call.
TICKET, RESERVED_FOR = "lanes_ticket", "lanes_reserved_for"

#: Likewise, with the reason why it comes without a reservation, see `celery_app.broker.claimed`; empty: there is none.
VERDICT = "lanes_verdict"

#: Headers of a delivered job, by the scheduler: calls of it that were not answered in time, and when its last call left
#: that the API refused for now (429, 529), in µs by Redis' clock; 0: none was.
TIMEOUTS, REFUSED_AT = "lanes_timeouts", "lanes_refused_at"

#: Likewise, with the queue that it was claimed from. Its routing key need not be the queue's name: a project's own
#: exchanges may have keys that are called like lanes, and may be bound to lanes by other keys.
QUEUE = "lanes_queue"

#: A delivery tag of ours: the token of a claim, and the job's own tag.
_DELIVERY = re.compile(r"[0-9a-f]{32}:\d+\|")


def is_delivery(delivery: Any) -> bool:
    """Say whether a delivery tag is that of a claim; any other is of a message that kombu itself has popped."""
    return _DELIVERY.match(str(delivery)) is not None


def delivery_of(tag: str, token: str) -> str:
    """Return the delivery tag of a claimed job within this process.

    A job that comes back within milliseconds is claimed again, by the same worker, before Celery has acknowledged its
    first delivery; with the job's own tag that would acknowledge the second.
    """
    return f"{token}|{tag}"


def claim_of(delivery: str) -> tuple[str, str]:
    """Return the job's own tag and the token of its claim."""
    token, _, tag = delivery.partition("|")
    return tag, token


def queue_of(properties: Mapping[str, Any] | None, delivery_info: Mapping[str, Any] | None) -> str:
    """Return the queue that a message or a job came from; by its routing key, where no claim says so."""
    return str((properties or {}).get(QUEUE) or (delivery_info or {}).get("routing_key") or "?")


def is_claimed(properties: Mapping[str, Any] | None) -> bool:
    """Say whether a task's ``request.properties`` belong to a job that was claimed from this broker."""
    return bool(properties and properties.get(CLAIM_PROPERTY) and properties.get("delivery_tag"))
