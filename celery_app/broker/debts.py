"""What calls have used and the budget could not be told: it is told before their claims end."""

from __future__ import annotations

import logging
from typing import Any

import redis

from celery_app.process.bounded_log import BoundedLog
from celery_app.scheduler.scripts import SETTLE

logger = logging.getLogger(__name__)

#: Lines within 10 s about claims that the broker refuses to end; each is tried again twice a second.
MOST_REFUSALS = 1

refusals = BoundedLog(logger.warning, MOST_REFUSALS)


class Debts:
    """Settlements by claim; one that is not made by the end of its claim is taken for a call that never left."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._owed: dict[tuple[str, str], tuple[Any, ...]] = {}

    def owe(self, tag: str, token: str, settling: tuple[Any, ...]) -> None:
        """Settle a call later.

        Args:
            tag: of the job, or of the call itself.
            token: of its claim.
            settling: arguments of ``scheduler/scripts/settle.lua``.
        """
        self._owed[tag, token] = settling

    def pay(self, tag: str, token: str) -> None:
        """Settle the call of a claim that is about to end, if one is owed; what the server refuses is lost.

        Raises:
            redis.exceptions.RedisError: if Redis is away, or takes no writes.
        """
        settling = self._owed.get((tag, token))
        if settling is None:
            return
        try:
            SETTLE.run(self._client, (), settling)
        except redis.ReadOnlyError:
            raise
        except redis.ResponseError as exc:  # its end cannot wait
            refusals.say("the broker refuses to settle calls", f"{SETTLE.name} of a call: {exc}")
        self._owed.pop((tag, token), None)
