"""What was spent, day by day: by lane, model and tenant, as ``scheduler/scripts/lib/spent.lua`` writes it down."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from celery_app.budget.days import days_around
from celery_app.configuration.variables import NANODOLLARS
from celery_app.connections.redis_client import broker_errors, key_prefix, redis_client
from celery_app.keys import SPENT_DAYS_KEPT, SPENT_HOUR
from celery_app.scheduler.scripts import SPENT
from celery_app.settings import settings_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from celery_app.settings import Settings

#: By whom it is told who spends, and what stands there for those of whom there are too many.
KINDS = ("lane", "model", "tenant")
OTHERS = "(others)"

#: Days back that can be asked for, and hours.
MOST_DAYS, MOST_HOURS = 40, 48

_S_PER_DAY, _S_PER_HOUR = 86_400, 3_600


class Amounts(NamedTuple):
    """What somebody's calls have cost.

    Attributes:
        calls: how many were made.
        usd: dollars.
        saved: dollars that message batches have spared.
    """

    calls: int = 0
    usd: float = 0.0
    saved: float = 0.0


class Spent(NamedTuple):
    """What was spent in a window.

    Attributes:
        window: a date, or an hour as in ``2026-11-27T14:00Z``.
        total: of all.
        by: ``lane``, ``model``, ``tenant`` -> name -> its part, the dearest first; the tenant ``""`` is nobody in
            particular.
        unpriced: model -> calls of it that no price of EZAI_PRICES fits.
        caps: ``all|``, ``lane|batch``, … -> dollars that a day may cost; only of those that have a cap, of a day.
    """

    window: str
    total: Amounts
    by: Mapping[str, Mapping[str, Amounts]]
    unpriced: Mapping[str, int]
    caps: Mapping[str, float]

    @classmethod
    def of(cls, window: str, fields: Iterable[tuple[bytes, bytes]], caps: Iterable[tuple[bytes, bytes]] = ()) -> Spent:
        """Read the fields of a window."""
        found: dict[str, dict[str, dict[str, int]]] = {}
        for field, number in fields:
            what, kind, name = field.decode(errors="replace").split("|", 2)
            if kind.startswith("other "):
                kind, name = kind.removeprefix("other ").removesuffix("s"), OTHERS
            found.setdefault(kind, {}).setdefault(name, {})[what] = int(number)
        by = {kind: _dearest_first(found.get(kind, {})) for kind in KINDS}
        unpriced = {name: each["unpriced"] for name, each in found.get("model", {}).items() if "unpriced" in each}
        allowed = {cap.decode(): int(usd) / NANODOLLARS for cap, usd in caps}
        return cls(window, _amounts(found.get("all", {}).get("", {})), by, unpriced, allowed)

    def lane(self, name: str) -> Amounts:
        """Return what a lane has spent."""
        return self.by["lane"].get(name, Amounts())

    @property
    def caps_used(self) -> dict[str, float]:
        """``all``, or a lane -> the part of its cap that is spent, 1 where it is used up."""
        spent = {f"lane|{name}": each.usd for name, each in self.by["lane"].items()} | {"all|": self.total.usd}
        used = {cap: spent.get(cap, 0.0) / usd for cap, usd in self.caps.items()}
        return {cap.partition("|")[2] or "all": part for cap, part in used.items()}


def spent_arguments(settings: Settings, prefix: str, days_ago: int = 0) -> list[Any]:
    """Return ARGV of ``scheduler/scripts/spent.lua``; the script knows which day it is."""
    around = days_around(settings.time_zone, time.time(), max(days_ago, 1) + 1)
    return [prefix, json.dumps(around), days_ago]


def spent_of(reply: Any) -> Spent:
    """Read its reply."""
    day, fields, caps = reply
    return Spent.of(day.decode(), _pairs(fields), _pairs(caps))


def spent_by_day(app: Any, days: int = 1) -> list[Spent]:
    """Return what was spent today, and in the days before.

    Args:
        app: a Celery application with lanes.
        days: how many, today among them; 40 at most.

    Returns:
        One for each day, the last one first.

    Raises:
        BrokerUnreachable: if no broker answers.
        ValueError: it is not kept that long.
    """
    if not 0 < days <= MOST_DAYS:
        raise ValueError(f"what was spent is kept for {SPENT_DAYS_KEPT // _S_PER_DAY - 1} days, not for {days}")
    settings, prefix, client = settings_of(app), key_prefix(app), redis_client(app)
    with broker_errors(app):
        return [spent_of(SPENT.run(client, (), spent_arguments(settings, prefix, ago))) for ago in range(days)]


def spent_by_hour(app: Any, hours: int = 24) -> list[Spent]:
    """Return the same of hours, 48 at most; an hour is one of UTC."""
    if not 0 < hours <= MOST_HOURS:
        raise ValueError(f"what was spent in an hour is kept for {MOST_HOURS} hours, not for {hours}")
    client, prefix = redis_client(app), key_prefix(app)
    with broker_errors(app):
        now: Any = client.time()
        last = int(now[0]) // _S_PER_HOUR
        with client.pipeline(transaction=False) as pipe:
            for hour in range(last, last - hours, -1):
                pipe.hgetall(SPENT_HOUR.of(prefix, hour))
            found: list[Any] = pipe.execute()
    return [Spent.of(_named(last - ago), fields.items()) for ago, fields in enumerate(found)]


def _pairs(flat: list[bytes]) -> Iterable[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=True)


def _named(hour: int) -> str:
    return time.strftime("%Y-%m-%dT%H:00Z", time.gmtime(hour * _S_PER_HOUR))


def _amounts(numbers: Mapping[str, int]) -> Amounts:
    usd, saved = (numbers.get(what, 0) / NANODOLLARS for what in ("usd", "saved"))
    return Amounts(numbers.get("calls", 0), usd, saved)


def _dearest_first(found: Mapping[str, Mapping[str, int]]) -> dict[str, Amounts]:
    parts = {name: _amounts(numbers) for name, numbers in found.items()}
    return dict(sorted(parts.items(), key=lambda each: (-each[1].usd, each[0])))
