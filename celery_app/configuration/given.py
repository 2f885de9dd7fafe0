"""What was set, and where: in the environment, or in Celery's configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from celery_app.configuration.variables import NULLABLE, LaneFields, Path, closest, is_ours, nearest, paths
from celery_app.lanes import LANES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: Variables that Celery has, too, and their places here.
_CELERYS: dict[str, Path] = {
    "CELERY_BROKER_URL": ("celery", "broker_url"),
    "CELERY_RESULT_BACKEND": ("celery", "result_backend"),
}

#: The key of the configuration that holds a dict of lanes.
_LANES = "LANES"

#: Stands before Celery's old names, which are for a configuration without a namespace.
_OLD_PREFIX = "CELERY_"

_ABSENT = object()


class Value(NamedTuple):
    """A value, and where somebody set it.

    Attributes:
        raw: as it was set; never shown, it may be a key.
        origin: as in "EZAI_RPM" or "the setting CELERY_EZAI_RPM".
    """

    raw: Any
    origin: str


class Given(NamedTuple):
    """Everything that was set.

    Attributes:
        values: by place.
        problems: names that are misspelt, and values of the wrong shape; in words, without the values.
    """

    values: dict[Path, Value]
    problems: list[str]

    def under(self, weaker: Given) -> Given:
        """Lay this over what counts less, field by field."""
        return Given({**weaker.values, **self.values}, [*self.problems, *weaker.problems])


def from_environment(environ: Mapping[str, str]) -> Given:
    """Return what the environment says; an empty variable is not set, as compose files hand over some."""
    given = Given({}, [])
    for name in sorted(environ):
        path = _CELERYS.get(name) or paths().get(name)
        if path is None:
            given.problems.extend(_unknown(name, name))
        elif value := environ.get(name):  # another thread may have taken it away
            given.values[path] = Value(value, name)
    return given


def from_configuration(conf: Any) -> Given:
    """Return what Celery's configuration says: ``lanes_batch_capacity``, ``ezai_rpm``, ``lanes``.

    A namespace may stand before each, as before Celery's own: under ``CELERY`` it is ``CELERY_EZAI_RPM``. A name that
    is written just like the variable is taken, too.

    Args:
        conf: a Celery application's configuration, loaded.
    """
    given = Given(dict(_celerys_own(conf)), [])
    # Later ones win: Celery looks through the maps from the first to the last, which are its defaults.
    for source in reversed(conf.maps[:-1]):
        _read(source, conf.prefix or "", given)
    return given


def _celerys_own(conf: Any) -> Iterator[tuple[Path, Value]]:
    """Where the broker and the results are, as Celery finds it: each has several names."""
    broker = conf.broker_write_url  # where it sends its jobs; broker_url, unless the project tells the two apart
    if isinstance(broker, list | tuple):
        broker = ";".join(map(str, broker))
    for name, value in (("broker_url", broker), ("result_backend", conf.result_backend)):
        if value:
            yield ("celery", name), Value(value, _setting(_spelled(name, conf.prefix or "")))


def _spelled(key: str, prefix: str) -> str:
    name = f"{prefix}{key}"
    return name.upper() if prefix.isupper() else name


def _setting(key: str) -> str:
    return f"the setting {key}"


def _read(source: Mapping[str, Any], prefix: str, given: Given) -> None:
    """Add what one of the configuration's maps says: its dict of lanes first, so that a name of its own wins."""
    for key, name in sorted(_keys_of_ours(source, prefix or _OLD_PREFIX), key=lambda each: each[1] != _LANES):
        value = source.get(key, _ABSENT)
        if value is _ABSENT:
            continue  # an object may name an attribute that it has no value for
        if name == _LANES:
            _read_lanes(key, value, given)
        elif name in paths():
            _add(given, paths()[name], value, _setting(key))
        elif _is_data(value):
            given.problems.extend(_unknown(name, _setting(key)))


def _keys_of_ours(source: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    """Yield keys that may be ours, each with its variable's name; one with the namespace follows its plain twin."""
    plain = [(key, key.upper()) for key in source if isinstance(key, str)]
    spaced = [(key, name[len(prefix) :]) for key, name in plain if name.startswith(prefix.upper())]
    yield from ((key, name) for key, name in plain + spaced if name == _LANES or name.startswith(("EZAI_", "LANES_")))


def _add(given: Given, path: Path, value: Any, origin: str) -> None:
    if value is None and path[-1] not in NULLABLE:
        return  # os.environ.get(…) in a settings module, mostly
    if value != "":
        given.values[path] = Value(value, origin)


def _read_lanes(key: str, value: Any, given: Given) -> None:
    """Add a dict ``{"batch": {"capacity": 500}}``, or the same as JSON."""
    lanes = _decoded(value)
    if not isinstance(lanes, Mapping):
        given.problems.extend(() if _is_somebody_elses(key, value) else [f"{_setting(key)}: must be a dict of lanes"])
        return
    known = [lane.name for lane in LANES]
    if key == _LANES and not {str(name).lower() for name in lanes} & {*known}:
        return
    for name, fields in lanes.items():
        lane = str(name).lower()
        if lane not in known:
            given.problems.append(f"{_setting(key)}: {name!r} is no lane, did you mean {closest(lane, known)!r}?")
        elif not isinstance(fields, Mapping):
            given.problems.append(f"{_setting(key)} at {lane}: must be a dict of the lane's fields")
        else:
            _read_lane(key, lane, fields, given)


def _is_somebody_elses(key: str, value: Any) -> bool:
    """A settings module may have a LANES of its own; and a `lanes` that is a module, or ours, was imported there."""
    return key == _LANES or value is None or value == "" or value is LANES or not _is_data(value)


def _read_lane(key: str, lane: str, fields: Mapping[Any, Any], given: Given) -> None:
    for name, value in fields.items():
        field, origin = str(name).lower(), f"{_setting(key)} at {lane}"
        if field in LaneFields.model_fields:
            _add(given, ("lanes", lane, field), value, f"{origin}.{field}")
        else:
            best = closest(field, LaneFields.model_fields)
            given.problems.append(f"{origin}: {name!r} is unknown, did you mean {best!r}?")


def _decoded(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return None


def _unknown(name: str, origin: str) -> Iterable[str]:
    if is_ours(name):
        yield f"{origin} is unknown, did you mean {nearest(name)}?"


def _is_data(value: Any) -> bool:
    """A settings module has functions and modules in it, too."""
    return not callable(value) and not isinstance(value, ModuleType)
