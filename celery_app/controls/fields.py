"""What operators can set of models, lanes and tenants; each of these raises `InvalidControl`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic import BaseModel, ValidationError

from celery_app.configuration.variables import NANODOLLARS, Dollars, LaneFields, Limits, Weight, closest
from celery_app.errors import InvalidControl
from celery_app.lanes import LANES

if TYPE_CHECKING:
    from collections.abc import Collection


class _TenantFields(BaseModel):
    weight: Weight | None = None
    usd_per_day: Dollars | None = None


class _DayFields(BaseModel):
    usd_per_day: Dollars


class _BatchFields(BaseModel):
    usd: Dollars


#: Fields that can be set, of the models that a pattern names, of a lane, of a tenant, of a batch, and of all calls.
FIELDS: Final = {
    "model": tuple(Limits.model_fields),
    "lane": ("floor", "share", "capacity", "usd_per_day"),
    "tenant": tuple(_TenantFields.model_fields),
    "batch": tuple(_BatchFields.model_fields),
    "all": tuple(_DayFields.model_fields),
}

_SHAPES: Final[dict[str, type[BaseModel]]] = {
    "model": Limits,
    "lane": LaneFields,
    "tenant": _TenantFields,
    "batch": _BatchFields,
    "all": _DayFields,
}

#: Fields that are caps on money: in dollars here, in nanodollars in Redis.
MONEY: Final = ("usd_per_day", "usd")

#: Characters of a pattern, of a tenant's name and of who it was, at most.
LONGEST_NAME = 200

#: More than anybody can be allowed of anything.
_MOST = 1e12

#: Halves of a character, which no UTF-8 has.
_SURROGATES = range(0xD800, 0xE000)

#: In the hash, for "no limit".
_NO_LIMIT = 0

#: The same of a cap on money, of which 0 is one.
NO_CAP: Final = -1


class Named(NamedTuple):
    """Whose fields are meant: one of these, or all calls'."""

    model: str | None = None
    lane: str | None = None
    tenant: str | None = None
    batch: str | None = None


def named(whose: Named, fields: Collection[str]) -> tuple[str, str]:
    """Return which of them was named; none, where the fields are those of all calls."""
    named = [(kind, name) for kind, name in whose._asdict().items() if name is not None]
    if not named and fields and {*fields} <= {*FIELDS["all"]}:
        return "all", ""
    if len(named) != 1:
        raise InvalidControl(problem="whose? Name one thing: a pattern of models, a lane, a tenant or a batch")
    kind, name = named[0]
    if kind == "lane":
        check_lane(name)
    if not 0 < len(name) <= LONGEST_NAME or any(ord(char) in _SURROGATES for char in name):
        raise InvalidControl(problem=f"the name of a {kind} has 1 to {LONGEST_NAME} characters")
    return kind, name


def check_lane(lane: str) -> None:
    """Refuse what is no lane."""
    names = [each.name for each in LANES]
    if lane not in names:
        raise InvalidControl(problem=f"{lane!r} is no lane, did you mean {closest(lane, names)!r}?")


def check_field(kind: str, field: str) -> None:
    """Refuse what cannot be set."""
    if field not in FIELDS[kind]:
        best = closest(field, FIELDS[kind])
        known = ", ".join(FIELDS[kind])
        raise InvalidControl(problem=f"a {kind} has no {field!r} to set, did you mean {best!r}? There are: {known}")


def checked(kind: str, field: str, value: Any) -> float:
    """Return a value as the script takes it."""
    check_field(kind, field)
    if value is None and (kind == "model" or field in MONEY):
        return NO_CAP if field in MONEY else _NO_LIMIT
    try:
        number: float | None = getattr(_SHAPES[kind].model_validate({field: value}), field)
    except ValidationError as exc:
        said = exc.errors()[0]["msg"]
        raise InvalidControl(problem=f"{field}: {said[:1].lower()}{said[1:]}, not {value!r}") from None
    if number is None:
        raise InvalidControl(problem=f"{field}: a {kind} needs one; `lanes limits reset` takes away what was set")
    if number > _MOST:
        raise InvalidControl(problem=f"{field}: more than {_MOST:,.0f} makes no sense")
    return round(number * NANODOLLARS) if field in MONEY else number
