"""What an operator changes on the lanes' page: pauses and limits, by the name of the login."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery_app import controls
from celery_app.errors import InvalidControl

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

#: What a limit can be set of; one of them is named.
_OF = ("model", "lane", "tenant", "batch")


def change(app: Any, wish: Mapping[str, Any], by: str) -> None:
    """Do what the page asks for.

    Args:
        app: a Celery application with lanes.
        wish: ``action`` is pause (``lane``, perhaps ``model`` and ``for_s``), resume (``lane``, perhaps ``model``), set
            (``model``, ``lane``, ``tenant`` or ``batch``; ``values``: field -> number or None; ``new``: whether nobody
            has called such a model yet) or reset (the same, ``fields``).
        by: who it is.

    Raises:
        InvalidControl: naming what is wrong.
        BrokerUnreachable: if no broker answers.
    """
    action = str(wish.get("action"))
    if action not in _ACTIONS:
        raise InvalidControl(problem=f"there is no {action!r}; there are {', '.join(_ACTIONS)}")
    _ACTIONS[action](app, wish, by)


def _pause(app: Any, wish: Mapping[str, Any], by: str) -> None:
    for_s = wish.get("for_s")
    if for_s is not None and not isinstance(for_s, int | float):
        raise InvalidControl(problem=f"a pause lasts for some seconds, not {for_s!r}")
    controls.pause(app, str(wish.get("lane")), model=str(wish.get("model") or ""), for_s=for_s, by=by)


def _resume(app: Any, wish: Mapping[str, Any], by: str) -> None:
    model = wish.get("model")
    controls.resume(app, str(wish.get("lane")), model=None if model is None else str(model), by=by)


def _set(app: Any, wish: Mapping[str, Any], by: str) -> None:
    values = wish.get("values")
    if not isinstance(values, dict):
        raise InvalidControl(problem="nothing to set: values are a field and a number")
    controls.set_limits(app, values, **_of(wish), new=wish.get("new") is True, by=by)


def _reset(app: Any, wish: Mapping[str, Any], by: str) -> None:
    fields = wish.get("fields") or ()
    if not _of(wish) or not isinstance(fields, list | tuple):
        raise InvalidControl(problem="whose limits? Name a pattern of models, a lane or a tenant")
    controls.reset_limits(app, [str(each) for each in fields], **_of(wish), by=by)


def _of(wish: Mapping[str, Any]) -> dict[str, Any]:
    return {kind: str(wish[kind]) for kind in _OF if wish.get(kind) is not None}


_ACTIONS: dict[str, Callable[[Any, Mapping[str, Any], str], None]] = {
    "pause": _pause,
    "resume": _resume,
    "set": _set,
    "reset": _reset,
}
