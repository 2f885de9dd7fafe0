"""The budgets that the API has shut, as the workers tell everybody: until when, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from celery_app.budget.levels import shown_name
from celery_app.budget.variant import fits

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The family of models without a pattern; it needs no name.
_ANY_MODEL = "*"

_US_PER_S, _S_PER_MIN = 1_000_000, 60

#: Seconds from which on a time is told in minutes.
_LONG = 120


class Shut(NamedTuple):
    """A budget that the API has shut.

    Attributes:
        account: whether it refuses the account; otherwise it said ``retry-after``.
        words: as the end of a sentence that begins with "batch waits for".
    """

    account: bool
    words: str


def shut_of(shut: Mapping[Any, Any], lane: str, now: float, model: str | None = None) -> list[Shut]:
    """Return the budgets that the API has shut to a lane's jobs, or to those of one model.

    Args:
        shut: the hash at `celery_app.keys.SHUT`, as redis-py returns it.
        lane: its name.
        now: seconds since the epoch, by Redis' clock.
        model: whose budget it is about: the one with the longest name that fits; None: all.

    Returns:
        ``the API, which has shut the budget of m for another 59 min (429 rate_limit_error: …)`` for each of them.
    """
    entries = {_text(field).partition("|"): _text(value) for field, value in shut.items()}
    found = {family: _told(family, value, now) for (name, _, family), value in sorted(entries.items()) if name == lane}
    told = {family: each for family, each in found.items() if each}
    if model is None:
        return list(told.values())
    fitting = [family for family in told if family == model or fits(model, family)]
    return [told[max(fitting, key=len)]] if fitting else []


def _told(family: str, value: str, now: float) -> Shut | None:
    account, until_us, reason = value.split(" ", 2)
    models = "" if family == _ANY_MODEL else f" of {shown_name(family)}"
    why = f" ({reason})" if reason else ""
    if account == "1":
        refusal = f"the API, which refuses the account and so has shut the budget{models}{why}; one job a minute probes"
        return Shut(account=True, words=refusal)
    left = float(until_us) / _US_PER_S - now
    duration = f"{left:.1f} s" if left < _LONG else f"{left / _S_PER_MIN:.0f} min"
    wait = f"the API, which has shut the budget{models} for another {duration}{why}"
    return Shut(account=False, words=wait) if left > 0 else None


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
