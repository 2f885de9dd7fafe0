"""The result backend of a process that submits jobs."""

from __future__ import annotations

from typing import Any


def leave_unsubscribed(app: Any) -> None:
    """Keep Celery from subscribing to the result of every job that is sent (``Backend.on_task_call``).

    That costs a command before each job is sent, and a web process that never fetches the result would never
    unsubscribe. `AsyncResult.get` subscribes by itself, and looks for a result that is there already.
    """
    backend = app.backend  # each thread has its own
    if "on_task_call" not in vars(backend):
        backend.on_task_call = _do_nothing


def _do_nothing(*_: Any) -> dict[str, Any]:
    return {}
