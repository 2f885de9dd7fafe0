"""Put the lanes on each Celery application that an unchanged suite makes: `celery_app.install`, as its project would.

Python imports this file in every process that has its folder in PYTHONPATH, so also in the workers that a suite starts.
It waits until Celery itself is imported: a process that patches itself for gevent has done so by then.
"""

from __future__ import annotations

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec
    from types import ModuleType


class _Then(Loader):
    """A loader that does something once the module is there."""

    def __init__(self, loader: Any, then: Callable[[Any], None]) -> None:
        self._loader = loader
        self._then = then

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)  # type: ignore[no-any-return]

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        self._then(module)


class _After(MetaPathFinder):
    """Finds one module as usual, and lets something be done after it."""

    def __init__(self, name: str, then: Callable[[Any], None]) -> None:
        self._name = name
        self._then = then

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if name != self._name:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None:
            spec.loader = _Then(spec.loader, self._then)
        return spec


def _install_on_each(module: Any) -> None:
    """Wrap `Celery.__init__`; not for the application that `celery_app` makes while it is imported."""
    make = module.Celery.__init__

    def make_and_install(app: Any, *arguments: Any, **options: Any) -> None:
        make(app, *arguments, **options)
        if app.main == "celery_app":
            return
        from celery_app import install

        install(app)

    module.Celery.__init__ = make_and_install


sys.meta_path.insert(0, _After("celery.app.base", _install_on_each))
