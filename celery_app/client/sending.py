"""A job on its way out of a web process: checked, sent, or refused within seconds."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from celery_app.connections.redis_client import broker_errors
from celery_app.errors import UnknownLane
from celery_app.settings import settings_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery.result import AsyncResult

    from celery_app.lanes import Lane

CREATE_TASK = "tasks.create_message"


def lane_of(app: Any, name: str) -> Lane:
    """Return a lane with the application's settings.

    Raises:
        UnknownLane: with the nearest name that there is.
    """
    settings = settings_of(app)
    lane = settings.lane(name)
    if lane is None:
        names = [each.name for each in settings.lanes]
        nearest = difflib.get_close_matches(str(name), names, n=1)
        hint = f" (did you mean {nearest[0]!r}?)" if nearest else ""
        raise UnknownLane(name=name, hint=hint, lanes=", ".join(names))
    return lane


def send(
    app: Any, task: str, lane: Lane, params: Mapping[str, Any], headers: Mapping[str, Any] | None = None, **options: Any
) -> AsyncResult:
    """Send one job.

    Args:
        app: the Celery application.
        task: name of one of ours.
        lane: where to.
        params: of the Messages API.
        headers: of the message, besides the lanes' own.
        options: of ``apply_async``.

    Raises:
        InvalidRequest: naming the first bad parameter.
        LaneFull: no room within the lane's ``submit_wait``, or within ``wait=``.
        BrokerUnreachable: no broker answers; after at most 3 s.
    """
    with broker_errors(app):
        return task_of(app, task).apply_async(
            kwargs=dict(params), queue=lane.name, headers=dict(headers or {}), **options
        )


def task_of(app: Any, name: str) -> Any:
    """Return one of our tasks as the application has it."""
    import tasks  # noqa: F401 - makes them known

    return app.tasks[name]
