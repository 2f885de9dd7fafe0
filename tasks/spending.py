"""Whoever runs the lanes is told that most of a cap is spent: by a line in the log, and by a webhook."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from celery_app.configuration.variables import NANODOLLARS
from celery_app.process.webhook import WEBHOOK

if TYPE_CHECKING:
    from celery_app.budget.reservation import Warned
    from celery_app.settings import Settings

logger = logging.getLogger(__name__)


def say_nearly_spent(settings: Settings, warned: Warned) -> None:
    """Tell of a cap; the script that counts has said so once, to one process.

    It raises nothing: whatever goes wrong here, the call was answered.
    """
    try:
        _say(settings, warned)
    except Exception as exc:  # noqa: BLE001 - the call has been paid for
        logger.warning("nobody could be told that most of a cap is spent: %s", type(exc).__name__)


def _say(settings: Settings, warned: Warned) -> None:
    kind, _, name = warned.cap.partition("|")
    whose, spent, limit = f"{kind} {name}".strip(), warned.spent / NANODOLLARS, warned.limit / NANODOLLARS
    until = f" of {warned.day} ({settings.time_zone})" if warned.day else ""
    # A tenant is whatever its producer wrote.
    logger.warning("%r has spent $%.4f of its cap of $%.2f%s: %.0f %%", whose, spent, limit, until, 100 * spent / limit)
    if settings.usd_webhook is not None:
        told = {"event": "usd_nearly_spent", "cap": kind, "name": name, "spent_usd": spent, "limit_usd": limit}
        WEBHOOK.send(
            settings.usd_webhook.get_secret_value(), {**told, "day": warned.day, "time_zone": settings.time_zone}
        )
