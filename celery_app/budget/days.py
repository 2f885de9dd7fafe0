"""Days of spending: they begin at midnight in the operator's time zone, by the clock of Redis."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

#: Days before and after today of which a script is told: this machine's clock may be wrong, and what a call has cost
#: is told later where Redis is away.
_BEFORE, _AFTER = 2, 4


def days_around(zone: str, now: float, before: int = _BEFORE) -> tuple[tuple[int, str], ...]:
    """Return the days around a moment: when each begins, in seconds since the epoch, and its date.

    A script takes the last one that has begun by its own clock. Days are not all of 24 hours: where a zone changes to
    summer time, one has 23.

    Args:
        zone: where midnight is, as ``Europe/Berlin``.
        now: seconds since the epoch.
        before: days before today.
    """
    return _around(zone, datetime.fromtimestamp(now, ZoneInfo(zone)).date(), before)


@lru_cache(maxsize=8)
def _around(zone: str, today: date, before: int) -> tuple[tuple[int, str], ...]:
    days = (today + timedelta(days=each) for each in range(-before, _AFTER + 1))
    return tuple((int(datetime.combine(day, time.min, ZoneInfo(zone)).timestamp()), day.isoformat()) for day in days)
