"""A job that gives up its wait for the budget gives up its place, too."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from client_rig import PATIENCE, params, rig

from celery_app.connection import redis_client
from celery_app.errors import DeadlineExceeded

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Valkey


def test_a_job_whose_deadline_comes_first_keeps_no_room_for_itself(valkey: Valkey, tmp_path: Path) -> None:
    """A chat that would have to wait for a minute fails at once, and nobody waits behind it for that minute."""
    limits = json.dumps({"m": {"rpm": 1}})
    with rig(valkey, 13, tmp_path, EZAI_LIMITS=limits) as up:
        up.client.submit("critical", **params()).get(timeout=PATIENCE)
        with pytest.raises(DeadlineExceeded):
            up.client.submit("critical", **params()).get(timeout=PATIENCE)

        redis = redis_client(up.app)
        (budget,) = redis.keys("lanes:budget:*}")
        assert redis.hget(budget, "requests_level") is not None
        assert redis.hget(budget, "place:critical") is None
