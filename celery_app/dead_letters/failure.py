"""What the result backend says of a job that has failed: shown without what may be private, and forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.backends.base import DisabledBackend
from celery.states import FAILURE

from celery_app.errors import LanesError
from celery_app.results.backend import backend_of

if TYPE_CHECKING:
    from collections.abc import Iterable

#: How Python begins a traceback, and indents all of it that comes from the code.
_BEGINS, _INDENT = "Traceback (", "  "


def failure_of(app: Any, task: str, task_id: str) -> tuple[str, str]:
    """Return a job's error and its traceback; empty where there is none.

    An error of a project's own is shown as its class: its words may be anybody's, and stand in the traceback, too. So
    that is shown up to the end of its first stack, which has lines of code and nothing else.
    """
    backend = _backend_of(app, task)
    meta = backend.get_task_meta(task_id, cache=False) if backend is not None else {}
    if meta.get("status") != FAILURE:
        return "", ""
    error = meta.get("result")
    name = type(error).__name__
    return f"{name}: {error}" if isinstance(error, LanesError) else name, _stack(meta.get("traceback") or "")


def forget_failures(app: Any, task: str, task_ids: Iterable[str]) -> None:
    """Forget that jobs of a task have failed: whoever asks from now on waits. Any other result stands."""
    backend = _backend_of(app, task)
    if backend is None:
        return
    for task_id in task_ids:
        if backend.get_task_meta(task_id, cache=False)["status"] == FAILURE:
            backend.forget(task_id)


def _backend_of(app: Any, task: str) -> Any:
    """Return where the results of a task are; None: nowhere."""
    known = app.tasks.get(task)
    backend = backend_of(app) if known is None else known.backend
    return None if isinstance(backend, DisabledBackend) else backend


def _stack(traceback: str) -> str:
    lines = traceback.splitlines()
    if not lines or not lines[0].startswith(_BEGINS):
        return ""
    end = next((i for i, line in enumerate(lines[1:], 1) if not line.startswith(_INDENT)), len(lines))
    return "\n".join(lines[:end])
