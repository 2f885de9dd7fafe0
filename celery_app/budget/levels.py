"""What is in the budgets, as ``scheduler/scripts/levels.lua`` tells it."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

#: A model's name, or a pattern of models, that is shown as it is. Anybody may name a model: what does not look like a
#: name of one is shown as `OTHER`, and may be anything, even a prompt.
_NAME = re.compile(r"[\w.:/@*?+\[\]!-]{0,80}", re.ASCII)
OTHER = "other"

#: Why a budget may be shut.
SHUT_REASONS = ("account", "retry_after")

_MS_PER_S = 1_000


def shown_name(name: str) -> str:
    """Return the name of a model, or a pattern of models, as it is shown."""
    return name if _NAME.fullmatch(name) else OTHER


class Level(NamedTuple):
    """One bucket of a budget.

    Attributes:
        lanes: those that draw on it, with commas between.
        family: the models that share the budget.
        model: whose bucket it is; empty: that of the whole budget.
        dimension: requests, input_tokens or output_tokens.
        limit: units per minute.
        level: units that are there; below zero after a job that was larger than the bucket.
        capacity: units that there can be.
    """

    lanes: str
    family: str
    model: str
    dimension: str
    limit: float
    level: float
    capacity: float


class BudgetState(NamedTuple):
    """A budget as a whole.

    Attributes:
        lanes: those that draw on it, with commas between.
        family: the models that share it.
        in_flight: calls.
        most: calls in flight that are configured; 0: not.
        shut: why the API has shut it, one of `SHUT_REASONS`; empty: it is open.
        shut_s: seconds until the API's ``retry-after`` is over.
    """

    lanes: str
    family: str
    in_flight: int
    most: int
    shut: str
    shut_s: float


class Budgets(NamedTuple):
    """All budgets; each name is there once.

    Attributes:
        left_out: models of lanes that were not looked at.
        states: one for each budget.
        levels: of their buckets.
    """

    left_out: int
    states: list[BudgetState]
    levels: list[Level]

    @classmethod
    def of(cls, reply: Any) -> Budgets:
        """Read the script's reply."""
        left_out, states, levels = reply
        return cls(left_out, _once(map(_state, states), 2), _once(map(_level, levels), 4))


def _state(row: list[Any]) -> BudgetState:
    lanes, family, in_flight, most, shut, shut_ms = row
    return BudgetState(lanes.decode(), _name(family), in_flight, most, shut.decode(), shut_ms / _MS_PER_S)


def _level(row: list[Any]) -> Level:
    lanes, family, model, dimension, *numbers = row
    limit, level, capacity = map(float, numbers)
    return Level(lanes.decode(), _name(family), _name(model), dimension.decode(), limit, level, capacity)


def _name(text: bytes) -> str:
    return shown_name(text.decode(errors="replace"))


def _once(rows: Any, names: int) -> list[Any]:
    """Keep the first of the rows that bear the same names: workers may disagree on a key, and names may be hidden."""
    return list({row[:names]: row for row in reversed(list(rows))}.values())
