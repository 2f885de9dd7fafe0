"""A value that is derived from the environment and Celery's configuration, and again when one of them has changed."""

from __future__ import annotations

from copy import deepcopy
from operator import is_
from types import MemberDescriptorType, ModuleType
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from celery.utils.collections import DictAttribute

from celery_app.configuration.given import Given, from_configuration, from_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

T = TypeVar("T")

#: What a class has in place of a value: it is computed, or lies in a slot.
_ELSEWHERE = (property, MemberDescriptorType)


class _Last(NamedTuple, Generic[T]):
    seen: tuple[_Contents, ...] | None
    given: Given
    value: T


class Derived(Generic[T]):
    """The value; it is asked for several times a job, so looking whether anything has changed takes microseconds."""

    def __init__(self, derive: Callable[[Given], T]) -> None:
        self._derive = derive
        self._last: _Last[T] | None = None

    def of(self, environ: Mapping[str, str], conf: Any) -> T:
        """Return the value for an environment and a loaded configuration, as they are now."""
        # Threads may derive it twice: each sees a whole `_Last`, and both values are right.
        last, places = self._last, _places(environ, conf)
        if last is not None and places is not None and _is_as_seen(places, last.seen):
            return last.value
        # Before it is read: what somebody changes meanwhile is found the next time.
        seen = tuple(map(_Contents, places)) if places is not None else None
        given = from_environment(environ).under(from_configuration(conf))
        value = last.value if last is not None and last.given == given else self._derive(given)
        self._last = _Last(seen, given, value)
        return value


class _Contents:
    """What was in a dict: the very objects, since to compare them could mean anything."""

    __slots__ = ("_keys", "_nested", "_values")

    def __init__(self, place: Mapping[Any, Any]) -> None:
        self._keys, self._values = tuple(place), tuple(place.values())
        # Somebody may change a dict of ours in place.
        mine = [value for key, value in place.items() if isinstance(value, dict) and _may_be_ours(key)]
        self._nested = [(value, deepcopy(value)) for value in mine]

    def are_in(self, place: Mapping[Any, Any]) -> bool:
        return (
            len(place) == len(self._keys)
            and all(map(is_, place.values(), self._values))
            and all(map(is_, place, self._keys))
            and all(now == then for now, then in self._nested)
        )


def _may_be_ours(key: object) -> bool:
    return isinstance(key, str) and any(word in key.upper() for word in ("LANES", "EZAI"))


def _is_as_seen(places: list[Mapping[Any, Any]], seen: tuple[_Contents, ...] | None) -> bool:
    return seen is not None and len(seen) == len(places) and all(map(_Contents.are_in, seen, places))


def _places(environ: Mapping[str, str], conf: Any) -> list[Mapping[Any, Any]] | None:
    """Return the dicts that hold the environment and the configuration; None if some of it is in no dict we know."""
    # os.environ decodes each name and value whenever it is read; below it lies a dict.
    places = [getattr(environ, "_data", environ), {"prefix": conf.prefix}]
    for source in conf.maps[:-1]:  # the last are Celery's defaults
        dicts = [source] if isinstance(source, dict) else _attributes(source)
        if dicts is None:
            return None
        places.extend(dicts)
    return places


def _attributes(source: Any) -> Iterable[Mapping[Any, Any]] | None:
    """Return the dicts with the attributes of a module, an object or Django's settings; None if some are computed."""
    if not isinstance(source, DictAttribute):
        return None
    obj = source.obj
    if found := _django_settings(obj):
        return found
    own = [vars(obj)] if hasattr(obj, "__dict__") else []
    classes = [] if isinstance(obj, ModuleType) else [vars(each) for each in _classes(obj)]
    if hasattr(type(obj), "__getattr__") or (isinstance(obj, ModuleType) and "__getattr__" in vars(obj)):
        return None
    elsewhere = any(isinstance(value, _ELSEWHERE) for each in classes for value in each.values())
    return None if elsewhere else own + classes


def _classes(obj: Any) -> tuple[type, ...]:
    """Return the classes that an object, or a class itself, has attributes from; not `object`."""
    return obj.__mro__[1:-1] if isinstance(obj, type) else type(obj).__mro__[:-1]


def _django_settings(obj: Any) -> list[Mapping[Any, Any]]:
    """Each `override_settings` lays its own over what was there."""
    found: list[Mapping[Any, Any]] = []
    layer = getattr(obj, "__dict__", {}).get("_wrapped")
    while type(layer).__module__ == "django.conf":
        found.append(vars(layer))
        layer = vars(layer).get("default_settings")
    return found
