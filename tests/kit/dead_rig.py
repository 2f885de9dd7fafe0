"""A worker whose jobs die soon, and an API that is down while a test says so."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery.result import AsyncResult

from celery_app.connections.redis_client import redis_client
from celery_app.dead_letters import DeadLetter
from celery_app.errors import ApiError
from kit.client_rig import IN_TIME_S, Rig, drop_jobs, fresh, params, rig, the_dead
from tests.conftest import Valkey

#: Attempts of a job: one repetition shows that there is one, and costs half a second at most.
ATTEMPTS = 2

#: It looks like no other.
KEY = "sk-canary-0123"


@contextmanager
def dead_rig(valkey: Valkey, tmp_path: Path, *options: str, db: int = 13) -> Iterator[Rig]:
    """Run the worker of ``dead_tasks`` on an empty database, with these options."""
    attempts = {f"LANES_{lane}_ATTEMPTS": str(ATTEMPTS) for lane in ("CRITICAL", "BATCH")}
    with rig(valkey, db, tmp_path, options=options, app="dead_tasks", EZAI_API_KEY=KEY, **attempts) as up:
        yield up


def down(rig: Rig) -> Rig:
    """Return the rig as if no test had used it, with all that a job needs broken."""
    redis = redis_client(rig.app)
    drop_jobs(redis)
    redis.set("broken", 1)
    return fresh(rig, server_error_rate=1.0, spend_limit=False)


def up_again(rig: Rig, **behaviour: Any) -> None:
    """Have all go well from now on."""
    redis_client(rig.app).delete("broken")
    fresh(rig, server_error_rate=0.0, spend_limit=False, **behaviour)


def died(rig: Rig, lane: str = "critical", **more: Any) -> tuple[AsyncResult, DeadLetter]:
    """Have a job use up its attempts."""
    result = rig.client.submit(lane, **params(**more))
    with pytest.raises(ApiError):
        result.get(timeout=IN_TIME_S)
    (letter,) = the_dead(rig)
    return result, letter
