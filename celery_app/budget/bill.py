"""The bill of a call, as the script that settles it writes it down: whose it is, and what it came to."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, NamedTuple

from celery_app.budget.days import days_around
from celery_app.budget.prices import PER_TOKEN, in_batch, price_of, used_usd

if TYPE_CHECKING:
    from celery_app.budget.usage import Usage
    from celery_app.settings import Settings

#: Characters of a name at most, as everywhere.
_LONGEST = 256


class Payer(NamedTuple):
    """Whose call it is.

    Attributes:
        lane: its name.
        model: that was called, with its variant.
        tenant: empty: nobody in particular.
        batch: its id; empty: the job is part of none.
    """

    lane: str
    model: str
    tenant: str
    batch: str


def bill_of(
    settings: Settings, payer: Payer, usage: Usage | None, now: float, *, shipped: bool
) -> tuple[Usage | None, str]:
    """Return what a call has used with what that came to, and its bill.

    Args:
        settings: with the prices.
        payer: whose call it is.
        usage: tokens; None: nobody says, and what it has reserved counts.
        now: seconds since the epoch.
        shipped: whether it was part of a message batch of the API's.

    Returns:
        The usage with its ``usd``, and JSON as ``scheduler/scripts/lib/spent.lua`` has it; without prices the usage as
        it was, and an empty text.
    """
    if not settings.prices:
        return usage, ""
    names = {name: value[:_LONGEST] for name, value in payer._asdict().items()}
    price, saved, rates = price_of(settings, payer.model), 0, (0.0, 0.0)
    if price is not None:
        part = price.part_in_batch if shipped else 1
        rates = (price.input * PER_TOKEN * part, price.output * PER_TOKEN * part)
    if usage is not None:
        usd = used_usd(price, usage) if price is not None else 0
        due = in_batch(price, usd) if price is not None and (shipped or usage.in_batch) else usd
        usage, saved = dataclasses.replace(usage, usd=due), usd - due
    told = {"saved": saved, "unpriced": int(price is None), "rates": rates}
    return usage, json.dumps({**names, **told, "days": days_around(settings.time_zone, now)})
