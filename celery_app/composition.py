"""Lane tasks on an application: they are that application's tasks, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def compose_tasks(app: Any) -> None:
    """Have every lane task of an application inherit from the application's own ``task_cls`` besides.

    Flask's documented pattern runs tasks in the application's context there, Django's offers ``delay_on_commit``, and
    tenants' schemas are chosen there; ``base=LaneTask`` would leave all of it out.
    """
    make = app._task_from_fun  # noqa: SLF001 - where ``@app.task`` and ``@shared_task`` both end

    def make_composed(fun: Any, name: str | None = None, base: Any = None, **options: Any) -> Any:
        return make(fun, name=name, base=composed(base, app) if base is not None else None, **options)

    app._task_from_fun = make_composed  # noqa: SLF001


def composed(base: type, app: Any) -> type:
    """Return `base`, and the application's own task class behind it where `base` is for lanes."""
    own: type = app.Task
    if not getattr(base, "in_lanes", False) or issubclass(base, own):
        return base
    if issubclass(own, base):
        return own  # its `task_cls` is a lane task already
    make: Callable[..., type] = _metaclass_of(base, own)
    return make(base.__name__, (base, own), {"abstract": True, "__module__": base.__module__})


def _metaclass_of(one: type, other: type) -> type:
    """Return what can make a class that inherits from both: each may have a metaclass of the project's."""
    first, second = type(one), type(other)
    if issubclass(first, second):
        return first
    return second if issubclass(second, first) else type(first.__name__, (first, second), {})
