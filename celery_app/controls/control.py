"""One thing that an operator has set while all runs, as it is kept in Redis."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from celery_app.budget.variant import fits
from celery_app.configuration.variables import NANODOLLARS
from celery_app.controls.fields import MONEY

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

#: What can be set, in the order in which it is shown.
KINDS: Final = ("pause", "drain", "model", "lane", "tenant", "batch", "all")

_MS_PER_S, _S_PER_MIN = 1_000, 60

#: Seconds from which on a time is told in minutes.
_LONG = 120


@dataclass(frozen=True, slots=True)
class Control:
    """One thing that an operator has set.

    Attributes:
        kind: ``pause``, ``drain``, ``model``, ``lane``, ``tenant``, ``batch``, or ``all`` calls.
        name: a lane, a pattern of models, a tenant, or a batch's id; empty for ``all``.
        field: as in `FIELDS`; of a pause, the pattern of the models that it is for: empty for all.
        value: what was set, money in dollars; None: no limit.
        by: who has done it, ``user@host``.
        age_s: seconds since then.
        left_s: seconds for which it lasts; None: until somebody takes it away.
    """

    kind: str
    name: str
    field: str
    value: float | None
    by: str
    age_s: float
    left_s: float | None

    @property
    def since(self) -> str:
        """How long ago it was set, in words."""
        return duration(self.age_s)

    def is_for(self, model: str) -> bool:
        """Whether a pause is for a model's jobs."""
        return not self.field or fits(model, self.field)

    @property
    def words(self) -> str:
        """A pause, as the end of a sentence that begins with "batch waits for"."""
        models = f" of {self.field}" if self.field else ""
        if self.left_s is not None:
            return f"the end of the pause{models} by {self.by}, in {duration(self.left_s)}"
        return f"`lanes resume {self.name}`, since {self.by} paused it{models} {self.since} ago"


def controls_of(fields: Mapping[Any, Any], now: float) -> list[Control]:
    """Read the hash; now: seconds since the epoch, by Redis' clock."""
    found = (_control(name, text, now) for name, text in fields.items())
    live = (each for each in found if each is not None and (each.left_s is None or each.left_s > 0))
    return sorted(live, key=lambda each: (KINDS.index(each.kind), each.name, each.field))


def pauses_of(controls: Iterable[Control], lane: str) -> list[Control]:
    """Return the pauses of a lane."""
    return [each for each in controls if each.kind == "pause" and each.name == lane]


def duration(seconds: float) -> str:
    """Return seconds, or minutes, in words."""
    return f"{seconds:.1f} s" if seconds < _LONG else f"{seconds / _S_PER_MIN:.0f} min"


def _control(place: bytes, text: bytes, now: float) -> Control | None:
    """Read one; None: somebody else's, or a newer version's, which the scripts pass over, too."""
    with suppress(ValueError, KeyError, TypeError, OverflowError):
        kind, one, other = place.decode().split("|", 2)
        kind, name, field = {
            "pause": ("pause", one, other),
            "drain": ("drain", one, ""),
            "weight": ("tenant", other, "weight"),
            "cap": (one, other, "usd" if one == "batch" else "usd_per_day"),
        }.get(kind, (kind, other, one))
        return _known(kind, name, field, json.loads(text), now) if kind in KINDS else None
    return None


def _known(kind: str, name: str, field: str, known: Any, now: float) -> Control:
    left = known["till"] / _MS_PER_S - now if known["till"] else None
    value = None if kind == "model" and not known["value"] else known["value"]
    if field in MONEY:
        value = known["value"] / NANODOLLARS if known["value"] >= 0 else None
    return Control(kind, name, field, value, known["by"], max(0.0, now - known["at"] / _MS_PER_S), left)
