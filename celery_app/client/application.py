"""The Celery application that a call is for."""

from __future__ import annotations

from typing import Any

from celery import _state, current_app

from celery_app.settings import has_lanes, settings_of
from celery_app.stand_in import stand_in


def configured(app: Any = None) -> Any:
    """Return an application, configured: before, it would have no result backend.

    Args:
        app: with lanes; None: the process's own.
    """
    app = app or _of_process()
    settings_of(app)
    standing_in = stand_in()
    if standing_in is not None:
        standing_in.adopt(app)
    return app


def _of_process() -> Any:
    """Return this thread's application; of two in one process, the one that lanes were put on.

    Celery's current application is the one that was made last, whichever has lanes. `install` has made its own the
    default for threads that made none.
    """
    app, other = current_app._get_current_object(), _state.default_app  # noqa: SLF001 - the proxy is bound to a thread
    is_projects = has_lanes(other) and not getattr(other, "has_only_lanes", False)
    return other if is_projects and not has_lanes(app) else app
