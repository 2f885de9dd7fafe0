"""Fields of a frozen record, changed by name: every wrong name and type reported together."""

from __future__ import annotations

import dataclasses
import difflib
import math
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from _typeshed import DataclassInstance

Record = TypeVar("Record", bound="DataclassInstance")

# An annotation, as written in the record, and what JSON value may stand for it.
_NUMBER: tuple[type, ...] = (int, float)
_ACCEPTED: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    "int | None": (int, type(None)),
    "float": _NUMBER,
    "float | None": (*_NUMBER, type(None)),
}


class InvalidChange(ValueError):
    """A change names a field that does not exist, or gives it a value that it cannot have."""


def kinds(record: type[DataclassInstance]) -> dict[str, str]:
    """Give each field's annotation as it was written: `{"latency": "float", …}`."""
    return {field.name: str(field.type) for field in dataclasses.fields(record)}


def changed(record: Record, changes: Mapping[str, Any]) -> Record:
    """Return the record with some fields replaced.

    Args:
        record: a frozen dataclass whose fields are bool, int or float, or such a number or None.
        changes: field name -> new value, as JSON gives it.

    Raises:
        InvalidChange: naming every unknown field (with the nearest known one) and every wrong type.
    """
    known = kinds(type(record))
    problems = [problem for name, value in changes.items() if (problem := _problem(name, value, known))]
    if problems:
        raise InvalidChange("; ".join(problems))
    try:
        return dataclasses.replace(record, **changes)
    except ValueError as error:
        raise InvalidChange(str(error)) from error


def unknown(name: str, known: Iterable[str]) -> str:
    """Say that a name is not known, and which known one is nearest."""
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"{name}: no such field" + (f"; did you mean {nearest[0]}?" if nearest else "")


def _problem(name: str, value: object, known: Mapping[str, str]) -> str | None:
    if name not in known:
        return unknown(name, known)
    accepted = _ACCEPTED[known[name]]
    if isinstance(value, float) and not math.isfinite(value):
        return f"{name}: must be finite"
    # bool is an int to Python, but `true` requests per minute is a mistake.
    if isinstance(value, accepted) and (bool in accepted or not isinstance(value, bool)):
        return None
    return f"{name}: {value!r} is not {known[name]}"
