"""What operators change while all runs: pauses, limits, the lanes' rules, tenants' weights, for all workers at once.

It is kept in Redis, where the scheduler reads it with each decision. What is set here is stronger than the environment
and the configuration, field by field, until it is taken away again.
"""

from __future__ import annotations

import getpass
import math
import socket
from typing import TYPE_CHECKING, Any

from celery_app.budget.budget import ANY_MODEL
from celery_app.budget.variant import fits
from celery_app.configuration.variables import closest
from celery_app.connections.redis_client import broker_errors, key_prefix, redis_client
from celery_app.controls.control import Control, controls_of
from celery_app.controls.fields import FIELDS, LONGEST_NAME, MONEY, Named, check_field, check_lane, checked, named
from celery_app.errors import InvalidControl
from celery_app.keys import BATCH_COUNTS, CONTROLS, TERMS
from celery_app.scheduler.scripts import CONTROL
from celery_app.settings import settings_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


_MS_PER_S, _US_PER_S = 1_000, 1_000_000

#: Seconds, a year: a pause that is to last for longer has no end.
LONGEST_PAUSE_S = 365 * 86_400


def pause(
    app: Any, lane: str, *, model: str = "", for_s: float | None = None, new: bool = False, by: str | None = None
) -> None:
    """Have a lane start no more jobs; what runs goes on, jobs can be submitted, and their deadlines pass.

    Args:
        app: a Celery application with lanes.
        lane: its name.
        model: a pattern (fnmatch) of the models whose jobs wait; empty: of all.
        for_s: seconds after which it ends by itself; None: `resume` ends it.
        new: whether the pattern may be for models that nobody has called yet.
        by: who does it; None: this process's user, and its host.

    Raises:
        InvalidControl: there is no such lane or model, or it is no time.
        BrokerUnreachable: if no broker answers.
    """
    check_lane(lane)
    if model:
        _check_pattern(app, model, new=new)
    if for_s is not None and not 0 < for_s <= LONGEST_PAUSE_S:
        raise InvalidControl(problem=f"a pause lasts for some seconds, not {for_s!r}")
    _change(app, [(f"pause|{lane}|{model}", 1)], by, for_s or 0)


def resume(app: Any, lane: str, *, model: str | None = None, by: str | None = None) -> bool:
    """End a lane's pauses: all, or the one of a pattern of models.

    Returns:
        Whether there was one.
    """
    check_lane(lane)
    paused = [each for each in read_controls(app) if each.kind == "pause" and each.name == lane]
    ended = [each.field for each in paused if model is None or each.field == model]
    if model is not None and not ended and paused:
        found = ", ".join(repr(each.field) if each.field else "all models" for each in paused)
        raise InvalidControl(problem=f"no pause of {lane} is for {model!r}; there is one for {found}")
    _change(app, [(f"pause|{lane}|{field}", None) for field in ended], by)
    return bool(ended)


def drain(app: Any, lane: str, *, by: str | None = None) -> None:
    """Have a lane take no more jobs: who submits one gets `LaneDraining`. Those that are queued are worked off."""
    check_lane(lane)
    _change(app, [(f"drain|{lane}|", 1)], by)


def fill_again(app: Any, lane: str, *, by: str | None = None) -> None:
    """End a lane's drain."""
    check_lane(lane)
    _change(app, [(f"drain|{lane}|", None)], by)


def set_limits(
    app: Any,
    values: Mapping[str, Any],
    *,
    model: str | None = None,
    lane: str | None = None,
    tenant: str | None = None,
    batch: str | None = None,
    new: bool = False,
    by: str | None = None,
) -> None:
    """Set fields of one thing, or of all calls; what is not named stays as it was.

    Args:
        app: a Celery application with lanes.
        values: field -> value, as in `FIELDS`; of a model's limits and of money None is none.
        model: a pattern (fnmatch) of models: rpm, itpm, otpm, rpd, itpd, otpd, concurrency. Of several that fit a model
            the longest counts, and before those of the environment; ``*`` is for those that no pattern of the
            environment names.
        lane: floor, share, capacity, usd_per_day.
        tenant: weight, usd_per_day.
        batch: its id; usd. Where nothing is named it is usd_per_day of all calls.
        new: whether the pattern may be for models that nobody has called yet.
        by: who does it; None: this process's user, and its host.

    Raises:
        InvalidControl: naming what is wrong, and the nearest that would be right.
        BrokerUnreachable: if no broker answers.
    """
    kind, name = named(Named(model, lane, tenant, batch), values)
    if kind == "model":
        _check_pattern(app, name, new=new)
    if kind == "batch":
        _check_batch(app, name)
    fields = {field: checked(kind, field, value) for field, value in values.items()}
    if not fields:
        raise InvalidControl(
            problem=f"nothing to set: name one of {', '.join(FIELDS[kind])}, as in {FIELDS[kind][0]}=…"
        )
    _change(app, [(_key(kind, name, field), value) for field, value in fields.items()], by)


def reset_limits(
    app: Any,
    fields: Iterable[str] = (),
    *,
    model: str | None = None,
    lane: str | None = None,
    tenant: str | None = None,
    batch: str | None = None,
    by: str | None = None,
) -> list[Control]:
    """Take away what was set: of one thing some fields or all, or, if none is named, of everything; pauses stay.

    Returns:
        What was taken away.
    """
    fields = tuple(fields)
    there = [each for each in read_controls(app) if each.kind in FIELDS]
    whose = Named(model, lane, tenant, batch)
    if whose != Named() or {*fields} & {*FIELDS["all"]}:
        kind, name = named(whose, fields)
        for field in fields:
            check_field(kind, field)
        there = [each for each in there if (each.kind, each.name) == (kind, name)]
    elif fields:
        raise InvalidControl(problem=f"whose {fields[0]}? Name a pattern of models, a lane, a tenant or a batch")
    gone = [each for each in there if not fields or each.field in fields]
    _change(app, [(_key(each.kind, each.name, each.field), None) for each in gone], by)
    return gone


def read_controls(app: Any) -> list[Control]:
    """Return what is set now, pauses first.

    Raises:
        BrokerUnreachable: if no broker answers.
    """
    with broker_errors(app):
        client, prefix = redis_client(app), key_prefix(app)
        with client.pipeline(transaction=False) as pipe:
            pipe.hgetall(CONTROLS.of(prefix))
            pipe.time()
            fields, (seconds, micros) = pipe.execute()
    return controls_of(fields, seconds + micros / _US_PER_S)


def _key(kind: str, name: str, field: str) -> str:
    if field in MONEY:
        return f"cap|{kind}|{name}"
    return f"weight|tenant|{name}" if kind == "tenant" else f"{kind}|{field}|{name}"


def _change(app: Any, changes: list[tuple[str, float | None]], by: str | None, lasts_s: float = 0) -> None:
    if not changes:
        return
    lasts = math.ceil(lasts_s * _MS_PER_S)  # a moment, too, is not for good
    parts = [part for name, value in changes for part in (name, "" if value is None else value, lasts)]
    with broker_errors(app):
        _, changed = CONTROL.run(redis_client(app), (), [key_prefix(app), (by or _whoever())[:LONGEST_NAME], *parts])
    if changed < 0:
        raise InvalidControl(problem="too much is set already, and each decision reads it all: reset some of it")


def _whoever() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "somebody"  # in a container, whose user has no name
    return f"{user}@{socket.gethostname()}"


def _check_batch(app: Any, batch: str) -> None:
    with broker_errors(app):
        if not redis_client(app).exists(BATCH_COUNTS.of(key_prefix(app), batch)):
            raise InvalidControl(problem=f"there is no batch {batch!r}, or it ended long ago")


def _check_pattern(app: Any, pattern: str, *, new: bool) -> None:
    """Refuse a pattern that is probably misspelt: it fits no model that was called, and nobody has named it."""
    if pattern == ANY_MODEL or new:
        return
    with broker_errors(app):
        fields: list[Any] = redis_client(app).hkeys(TERMS.of(key_prefix(app)))
    called = {field.decode().partition(":")[2] for field in fields} - {""}
    meant = {*settings_of(app).model_limits, *(each.name for each in read_controls(app) if each.kind == "model")}
    if pattern in meant or any(fits(model, pattern) for model in called):
        return
    known = sorted(called | meant)
    nearest = f", the nearest known is {closest(pattern, known)!r}" if known else ""
    raise InvalidControl(problem=f"no model like {pattern!r} has been called{nearest} (--new: it will be)")
