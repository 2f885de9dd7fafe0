"""Amounts with a limit for a day, or for a batch: money, and the API's use; ``scheduler/scripts/lib/quota.lua``."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote
from zoneinfo import ZoneInfo

from celery_app import keys
from celery_app.budget.levels import shown_name
from celery_app.configuration.variables import NANODOLLARS
from celery_app.scheduler.scripts import CAPS

if TYPE_CHECKING:
    from celery_app.settings import Settings

#: Days whose ends are written down: more than any worker runs without a restart, and even then they go on, by 24 hours.
DAYS_AHEAD = 400

#: The dimensions of a day's limits, as the scripts name them, in words.
BY_DAY = {
    "requests_day": "requests per day",
    "input_tokens_day": "input tokens per day",
    "output_tokens_day": "output tokens per day",
}

_MS_PER_S = 1_000


class Quota(NamedTuple):
    """A quota that is used up.

    Attributes:
        kind: ``all``, ``lane``, ``tenant`` or ``batch`` of money; ``model``: of a budget's day.
        whose: lane, tenant, batch or budget.
        amount: ``usd``, ``requests``, ``input_tokens``, ``output_tokens``.
        used: in its window, reservations included; nanodollars or units.
        limit: the same.
        till: when its window ends, seconds since the epoch; None: it has no end.
    """

    kind: str
    whose: str
    amount: str
    used: int
    limit: int
    till: float | None

    @classmethod
    def of(cls, told: str) -> Quota | None:
        """Read what a script tells; None: nothing."""
        if not told:
            return None
        name, amount, used, limit, till = told.split(" ")
        kind, _, whose = unquote(name).partition("|")
        return cls(kind, whose, amount, int(used), int(limit), int(till) / _MS_PER_S if till != "0" else None)

    def words(self, zone: str) -> str:
        """Return a cap of money as a sentence; zone: in which its end is told."""
        of = f" of {self.kind} {shown_name(self.whose)}" if self.whose else ""
        amounts = f"{self.used / NANODOLLARS:,.2f} of {self.limit / NANODOLLARS:,.2f} $"
        return f"usd cap{of} reached: {amounts}, until {self._end(zone)}"

    def _end(self, zone: str) -> str:
        if self.till is None:
            return "somebody raises it"
        return f"{datetime.fromtimestamp(self.till, ZoneInfo(zone)):%H:%M} {zone}"


def day_ends(zone: str, now: float, days: int = DAYS_AHEAD) -> list[int]:
    """Return when the next days end in a time zone: ms since the epoch, ascending.

    A day has 23 or 25 hours where summer time begins or ends in it. Where a change skips midnight, it ends with that.

    Args:
        zone: its name.
        now: seconds since the epoch.
        days: how many.
    """
    place = ZoneInfo(zone)
    today = datetime.fromtimestamp(now, place).date()
    midnights = (datetime.combine(today + timedelta(days=day), time.min, place) for day in range(1, days + 1))
    return sorted({round(each.astimezone(UTC).timestamp() * _MS_PER_S) for each in midnights})


def write_caps(client: Any, prefix: str, settings: Settings) -> None:
    """Write down what the settings say of money, and when days end, by the server's clock.

    Args:
        client: without a key prefix of its own.
        prefix: of all keys.
        settings: with the caps.

    Raises:
        redis.exceptions.RedisError: if Redis is away or full.
    """
    ends = [] if settings.time_zone == "UTC" else day_ends(settings.time_zone, client.time()[0])
    pairs = [part for pair in settings.caps.items() for part in pair]
    if ends or pairs or client.exists(keys.CAPS.of(prefix), keys.DAYS.of(prefix)):
        CAPS.run(client, (), (prefix, len(ends), *ends, *pairs))
