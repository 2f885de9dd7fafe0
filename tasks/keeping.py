"""A project's own hooks, which need not call ours."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def keeping(on_failure: Callable[..., None]) -> Callable[..., None]:
    """Return a task's `on_failure` that keeps the job as a dead letter afterwards, if it is to be kept."""

    @wraps(on_failure)
    def fail(task: Any, *args: Any, **kwargs: Any) -> None:
        from tasks.endings import keep_dead_letter  # brings redis-py along

        try:
            on_failure(task, *args, **kwargs)
        finally:
            keep_dead_letter(task.job)

    return fail
