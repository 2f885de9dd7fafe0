"""A worker's first job is as fast as its hundredth: SDK imported, client built, connections open before it starts."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from celery import bootsteps, signals

from celery_app.errors import UnsupportedWorker
from celery_app.settings import settings_of
from celery_app.worker.start import lanes_of
from tasks.loop import OutOfTime, close_loop, run

if TYPE_CHECKING:
    from collections.abc import Iterable

    from anthropic import APIStatusError

    from celery_app.settings import Settings

logger = logging.getLogger(__name__)

#: Connections opened ahead of the first job; further ones are opened as slots fill, each at the price of a handshake.
FIRST_CONNECTIONS = 4

#: Seconds that the API may take to answer the first request; a worker starts without it, too.
FIRST_REPLY_WITHIN = 5.0

#: What the Messages API calls a wrong key. A gateway may answer 401 to any path that it does not know, and a key
#: that may call but not list models is answered with 403: only both together are certain.
UNAUTHENTICATED = 401
WRONG_KEY = "authentication_error"

#: Statuses that make a wrong key likely enough to be told of.
DOUBTFUL_STATUSES = frozenset({401, 403})


class WarmUp(bootsteps.Step):
    """The step of a worker's start that readies its way to the API."""

    name = "warm-up"
    requires = ("celery_app.worker.start:LaneWorker",)

    def __init__(self, worker: Any, **options: Any) -> None:
        """Ready this process; a pool of processes has each of them do the same, after the fork.

        Raises:
            UnsupportedWorker: if the API says that a key is wrong: every job would fail.
        """
        if lanes_of(worker):
            _ready_worker(worker)
        super().__init__(worker, **options)


def _ready_worker(worker: Any) -> None:
    settings = settings_of(worker.app)
    keys = _keys_of(settings, lanes_of(worker))
    if "prefork" in str(worker.pool_cls):

        def ready_child(**_: Any) -> None:
            ready(keys, settings.base_url, FIRST_CONNECTIONS)

        signals.worker_process_init.connect(ready_child, weak=False)
        ready(keys, settings.base_url, 1)
        close_loop()  # what is forked now has a loop and connections of its own
    else:
        ready(keys, settings.base_url, min(worker.concurrency, FIRST_CONNECTIONS))


def ready(keys: Iterable[str], base_url: str, connections: int) -> None:
    """Import the SDK, build a client for each key, and have it open connections.

    Raises:
        UnsupportedWorker: if the API says that a key is wrong.
    """
    from tasks.clients import client_for

    for key in keys:
        client = client_for(key, base_url)
        try:
            run(partial(_knock_all, client, connections), FIRST_REPLY_WITHIN)
        except OutOfTime:
            logger.warning("the API at %s has not answered within %.0f s", base_url, FIRST_REPLY_WITHIN)


async def _knock_all(client: Any, connections: int) -> None:
    await asyncio.gather(*(_knock(client) for _ in range(connections)))


async def _knock(client: Any) -> None:
    """Ask for something that costs nothing, for the sake of the connection."""
    import anthropic
    import httpx2

    try:
        await client.get("/v1/models", cast_to=httpx2.Response, options={"params": {"limit": 1}})
    except anthropic.APIStatusError as exc:
        _judge(client, exc)
    except (anthropic.APIError, httpx2.HTTPError) as exc:
        logger.warning("the API at %s cannot be reached yet: %s", client.base_url, exc.__cause__ or exc)


def _judge(client: Any, exc: APIStatusError) -> None:
    """Refuse a key that is certainly wrong. Any other status says that the connection stands, which is all we asked.

    Raises:
        UnsupportedWorker: it is.
    """
    if exc.status_code == UNAUTHENTICATED and exc.type == WRONG_KEY:
        reason = f"the API at {client.base_url} refused the key ({exc.status_code})"
        raise UnsupportedWorker(reason=reason) from None
    if exc.status_code in DOUBTFUL_STATUSES:
        logger.warning(
            "the API at %s did not list its models (%s): this key may not, or it is wrong",
            client.base_url,
            exc.status_code,
        )


def _keys_of(settings: Settings, queues: Iterable[str]) -> list[str]:
    """Return the keys, each once, of the lanes among these queues."""
    keys = (settings.api_key(lane) for lane in settings.lanes if lane.name in queues)
    return list(dict.fromkeys(key for key in keys if key))
