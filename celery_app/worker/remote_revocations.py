"""``revoke`` and ``terminate`` by remote control: a job in a lane is cancelled, any other is Celery's."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import redis
from celery.backends.base import DisabledBackend
from celery.utils.functional import maybe_list
from celery.worker import state as worker_state
from celery.worker.control import Panel

from celery_app.broker.verdict import may_cancel
from celery_app.client.cancelling import cancel

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)


def revocations() -> dict[str, Callable[..., Any]]:
    """Return our answers to the commands that revoke jobs, by the commands' names."""
    return {"revoke": _revoke, "terminate": _terminate}


def _revoke(state: Any, task_id: Any, terminate: bool = False, signal: Any = None, **arguments: Any) -> Any:
    """Cancel what may be in a lane; Celery does the rest, and need not know of what has ended already."""
    left = [each for each in maybe_list(task_id) or () if not _has_ended(state.app, each)]
    return Panel.data["revoke"](state, task_id=left, terminate=terminate, signal=signal, **arguments)


def _terminate(state: Any, signal: Any, task_id: Any, **_: Any) -> Any:
    return _revoke(state, task_id, terminate=True, signal=signal)


def _has_ended(app: Any, task_id: str) -> bool:
    """Cancel a job unless it is known not to be in a lane; say whether it had ended in one before.

    This worker knows the jobs that it has. The mark of a job that is none of ours is looked at by nobody.
    """
    request = worker_state.requests.get(task_id)
    here = request is not None and getattr(request.task, "in_lanes", False)
    if request is not None and not here:
        return False
    try:
        if not may_cancel(app, task_id):
            return True
        # Where a project has results, Celery stores the state of what does not run here.
        if here or isinstance(app.backend, DisabledBackend):
            cancel(app, task_id)
    except redis.RedisError as exc:
        logger.warning("%s cannot be cancelled at the moment: %s", task_id, exc)
    return False
