"""What is checked, and within what limits of time, while a job is on its way into a lane."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from celery_app.connections.redis_client import broker_errors
from celery_app.jobs.identity import identity
from celery_app.jobs.publishing import noting_found
from celery_app.jobs.room import waiting_for_room
from celery_app.queues import refuse
from celery_app.results.backend import unsubscribed
from celery_app.settings import settings_of
from celery_app.stand_in import stand_in

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@contextmanager
def submission(app: Any, options: dict[str, Any], stated: Mapping[str, Any]) -> Iterator[list[str]]:
    """Submit one job within the block, which gives the ids of jobs that there were already by its name.

    Args:
        app: the Celery application.
        options: of ``apply_async``; those that are the lanes' own are taken out.
        stated: headers that say what the job will call.

    Raises:
        InvalidRequest: naming the option that is wrong.
        UnknownLane: there is no such queue.
        LaneFull: the lane had no room in time.
        BrokerUnreachable: within 3 s.
    """
    _check_place(app, options.get("queue"))
    names = identity(*(options.pop(name, None) for name in ("tenant", "unique", "unique_for")))
    options["headers"] = {**stated, **(options.get("headers") or {}), **names}
    with waiting_for_room(options.pop("wait", None)), broker_errors(app), unsubscribed(app), noting_found() as found:
        yield found


def _check_place(app: Any, queue: Any) -> None:
    settings, standing_in = settings_of(app), stand_in()
    if standing_in is not None:
        standing_in.adopt(app)
    elif not app.conf.task_always_eager:
        settings.check_broker()
    try:
        _ = app.amqp.queues[queue] if isinstance(queue, str) else None
    except KeyError:
        refuse(queue)
