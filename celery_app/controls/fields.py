"""What operators can set of models, lanes and tenants; each of these raises `InvalidControl`."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, ValidationError

from celery_app.configuration.variables import LaneFields, Limits, Weight, closest
from celery_app.errors import InvalidControl
from celery_app.lanes import LANES


class _TenantFields(BaseModel):
    weight: Weight


#: Fields that can be set, of the models that a pattern names, of a lane, and of a tenant.
FIELDS: Final = {
    "model": tuple(Limits.model_fields),
    "lane": ("floor", "share", "capacity"),
    "tenant": tuple(_TenantFields.model_fields),
}

_SHAPES: Final[dict[str, type[BaseModel]]] = {"model": Limits, "lane": LaneFields, "tenant": _TenantFields}

#: Characters of a pattern, of a tenant's name and of who it was, at most.
LONGEST_NAME = 200

#: More than anybody can be allowed of anything.
_MOST = 1e12

#: Halves of a character, which no UTF-8 has.
_SURROGATES = range(0xD800, 0xE000)

#: In the hash, for "no limit".
_NO_LIMIT = 0


def named(model: str | None, lane: str | None, tenant: str | None) -> tuple[str, str]:
    """Return which of the three was named."""
    named = [(kind, name) for kind, name in (("model", model), ("lane", lane), ("tenant", tenant)) if name is not None]
    if len(named) != 1:
        raise InvalidControl(problem="whose? Name one thing: a pattern of models, a lane or a tenant")
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
    if value is None and kind == "model":
        return _NO_LIMIT
    try:
        number: float | None = getattr(_SHAPES[kind].model_validate({field: value}), field)
    except ValidationError as exc:
        said = exc.errors()[0]["msg"]
        raise InvalidControl(problem=f"{field}: {said[:1].lower()}{said[1:]}, not {value!r}") from None
    if number is None:
        raise InvalidControl(problem=f"{field}: a {kind} needs one; `lanes limits reset` takes away what was set")
    if number > _MOST:
        raise InvalidControl(problem=f"{field}: more than {_MOST:,.0f} makes no sense")
    return number
