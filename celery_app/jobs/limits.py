"""Celery's own limits on tasks that run in lanes: refused with the reason, and with the setting that does it right.

A rate limit takes a job out of the broker and then lets it wait, in a slot that a more important one could have. A time
limit ends a job by killing its process; the lanes' workers have threads, which nobody can kill.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery_app.errors import UnsupportedTask

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: A task's attributes that limit it.
TIME_LIMITS = ("time_limit", "soft_time_limit")
LIMITS = ("rate_limit", *TIME_LIMITS)

RATE_REASON = (
    "a rate_limit would park its jobs in the slots of each worker; tell the lanes what your API key may do instead, "
    "by EZAI_RPM or, for a model, EZAI_LIMITS: jobs then wait in the broker, and all workers share the limit"
)
TIME_REASON = (
    "the lanes' workers run jobs in threads, which a time limit cannot end; "
    "LANES_<LANE>_CALL_TIMEOUT bounds a call, LANES_<LANE>_DEADLINE a job"
)


def annotated(task: type[Any], name: str, own: Any) -> Any:
    """Return the value of a limit: what ``task_annotations`` says of this task by name, else its own.

    What is said of all tasks (``"*"``), or by a rule, is meant for those that nothing else limits.
    """
    for annotation in task.app.annotations:
        if isinstance(annotation, dict) and name in (annotation.get(task.name) or {}):
            return annotation[task.name][name]
    return own


def refuse_limits(task: Any, options: Mapping[str, Any]) -> None:
    """Refuse a job of a task that is limited by its rate, or one whose time is.

    Raises:
        UnsupportedTask: with the reason.
    """
    if task.rate_limit:
        raise UnsupportedTask(name=task.name, reason=RATE_REASON)
    if any(options.get(name) is not None for name in TIME_LIMITS if options.get(name) != getattr(task, name)):
        raise UnsupportedTask(name=task.name, reason=TIME_REASON)


def limited_tasks(app: Any, *, threads: bool) -> Iterator[str]:
    """Yield what a worker for lanes cannot do with the tasks that it has.

    Args:
        app: the Celery application.
        threads: whether the worker's pool cannot end a job.
    """
    for task in app.tasks.values():
        if not getattr(task, "in_lanes", False):
            continue
        if task.rate_limit:
            yield f"the task {task.name} cannot run in a lane: {RATE_REASON}"
        if threads and any(getattr(task, name) is not None for name in TIME_LIMITS):
            yield f"the task {task.name} cannot run in a lane: {TIME_REASON}"
