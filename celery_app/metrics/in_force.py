"""What limits and rules are in force, and where each comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from celery_app.budget.budget import ANY_MODEL
from celery_app.controls import FIELDS, read_controls
from celery_app.controls.fields import MONEY
from celery_app.lanes import LANES
from celery_app.settings import origins_of, settings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from celery_app.controls.control import Control
    from celery_app.settings import Settings

#: Where a value comes from that nobody has set, or that `install` was given.
DEFAULT, GIVEN = "default", "the settings given to install()"


class InForce(NamedTuple):
    """One value.

    Attributes:
        kind: ``model``, ``lane``, ``tenant``, ``batch``, or ``all`` calls.
        name: a pattern of models, a lane, a tenant, or a batch's id; empty for ``all``.
        field: as in `celery_app.controls.FIELDS`.
        value: what counts; None: no limit.
        origin: ``default``, the name of a variable or a setting, or ``ann@web1, 3 min ago``.
        control: what an operator has set; None: nobody has.
    """

    kind: str
    name: str
    field: str
    value: float | None
    origin: str
    control: Control | None


def in_force(app: Any) -> list[InForce]:
    """Return each value that counts: of the patterns of models, of the lanes, of the tenants.

    What nobody has set at run time is as this process' environment and configuration say, which ought to be the
    workers' ones.

    Raises:
        BrokerUnreachable: if no broker answers.
    """
    controls = {(each.kind, each.name, each.field): each for each in read_controls(app) if each.kind in FIELDS}
    rows = {(row.kind, row.name, row.field): row for row in _configured(app)}
    for place, control in controls.items():
        origin = f"{control.by}, {control.since} ago"
        rows[place] = InForce(*place, control.value, origin, control)
    return sorted(rows.values(), key=lambda row: list(FIELDS).index(row.kind))


def _configured(app: Any) -> Iterator[InForce]:
    settings, origins = settings_of(app), origins_of(app)
    elsewhere = GIVEN if app.lanes_settings_given is not None else DEFAULT

    def row(kind: str, name: str, field: str, value: float | None, *path: str) -> InForce:
        return InForce(kind, name, field, value, origins.get(path, elsewhere), None)

    yield from _of_models(settings, row)
    for lane, usual in zip(settings.lanes, LANES, strict=True):
        for field in FIELDS["lane"]:
            value = getattr(lane, field)
            found = row("lane", lane.name, field, value, "lanes", lane.name, field)
            is_usual = found.origin == GIVEN and value == getattr(usual, field)
            if field not in MONEY or value is not None:
                yield found._replace(origin=DEFAULT) if is_usual else found
    for tenant, weight in settings.tenant_weights.items():
        yield row("tenant", tenant, "weight", weight, "lanes", "tenant_weights")
    for tenant, usd in settings.tenant_usd_per_day.items():
        yield row("tenant", tenant, "usd_per_day", usd, "lanes", "tenant_usd_per_day")
    if settings.usd_per_day is not None:
        yield row("all", "", "usd_per_day", settings.usd_per_day, "ezai", "usd_per_day")


def _of_models(settings: Settings, row: Callable[..., InForce]) -> Iterator[InForce]:
    for pattern, limits in settings.model_limits.items():
        for field in FIELDS["model"]:
            if (value := getattr(limits, field)) is not None:
                yield row("model", pattern, field, value, "ezai", "limits")
    for field in FIELDS["model"]:
        if (value := getattr(settings.limits, field)) is not None and ANY_MODEL not in settings.model_limits:
            yield row("model", ANY_MODEL, field, value, "ezai", field)
