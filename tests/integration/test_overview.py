"""What `lanes top` gathers, without a terminal."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from kit.backlog import fill
from kit.broker import Broker
from kit.client_rig import params

from celery_app import controls
from celery_app.budget import budget_for
from celery_app.client import Client
from celery_app.connections.redis_client import redis_client
from celery_app.metrics.events import JobEvent
from celery_app.metrics.overview import CALLS_FLOOR, Overview
from celery_app.metrics.recorder import Recorder
from celery_app.scheduler.scripts import PRESENT
from celery_app.settings import settings_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.conftest import Valkey

#: A database of this module's own, for what is no job of `lanes_app`; the one behind it is taken, too.
DB = 6

ROOT = Path(__file__).parents[2]


def submit(app: Any, tenants: Iterable[str | None], lane: str = "batch", model: str = "m") -> None:
    """Submit a job for each."""
    for tenant in tenants:
        Client(app).submit(lane, tenant=tenant, **params() | {"model": model})


def rows(seen: dict[str, Any]) -> list[tuple[str, str, int]]:
    """Return the tenants of a look."""
    return [(each["tenant"], each["lane"], each["jobs"]) for each in seen["tenants"]]


def test_the_tenants_with_the_most_jobs_come_first(lanes_app: Any) -> None:
    """Of all their models together, lane by lane; jobs without a tenant are somebody's, too."""
    submit(lanes_app, ["a"] * 3 + ["b"] * 2 + [None])
    submit(lanes_app, ["b"] * 4, model="n")
    submit(lanes_app, ["a"] * 5, lane="normal")
    seen = Overview(lanes_app, "celery").look()
    assert rows(seen) == [("b", "batch", 6), ("a", "normal", 5), ("a", "batch", 3), ("", "batch", 1)]
    assert seen["tenants_left_out"] == 0


def test_of_a_crowd_some_are_counted_and_the_largest_is_not_forgotten(valkey: Valkey, tmp_path: Path) -> None:
    """Of 2,000 tenants a look counts some; who was found stays, and later looks find the rest."""
    with Broker(tmp_path, valkey.url(DB)) as broker:
        fill(broker, jobs=2_000, tenants=2_000, models=1)
        submit(broker.app, ["large"] * 3, model="m0")
        overview = Overview(broker.app, "celery")
        overview.look()
        broker.client.config_resetstat()
        seen = overview.look()
        assert broker.client.info("commandstats")["cmdstat_zcard"]["calls"] < 1_000
        assert seen["tenants_left_out"] > 1_000
        for _ in range(200):  # each finds it by a chance of one in four
            if rows(seen)[0][0] == "large":
                break
            seen = overview.look()
        for _ in range(5):
            assert rows(overview.look())[0] == ("large", "batch", 3)


def test_workers_and_slots_are_counted_once(lanes_app: Any) -> None:
    """A worker of three lanes has its slots in each of them, and once in all; one of an earlier version has none."""
    redis = redis_client(lanes_app)
    PRESENT.run(redis, (), ("", "one:8", "critical", "normal", "batch"))
    PRESENT.run(redis, (), ("", "two:20", "batch"))
    PRESENT.run(redis, (), ("", "old", "batch"))
    seen = Overview(lanes_app, "celery").look()
    assert (seen["workers"], seen["slots"]) == (3, 28)
    assert [(lane["workers"], lane["slots"]) for lane in seen["lanes"].values()] == [(1, 8), (1, 8), (3, 28)]


def test_the_wait_of_the_moment_is_of_what_has_just_left(lanes_app: Any) -> None:
    """Its mean, by lane, between looks; where nothing has left nobody knows it."""
    overview, recorder = Overview(lanes_app, "celery"), Recorder(lanes_app)
    assert overview.look()["lanes"]["critical"]["wait_now_s"] is None
    for seconds in (1.0, 3.0):
        recorder(JobEvent(kind="called", lane="critical", task="t", seconds=seconds))
    recorder.close()
    lanes = overview.look()["lanes"]
    assert lanes["critical"]["wait_now_s"] == pytest.approx(2.0)
    assert lanes["batch"]["wait_now_s"] is None


def test_a_floor_is_the_one_in_force(lanes_app: Any) -> None:
    """As configured, or as an operator has set it; who pauses and drains is named."""
    settings = settings_of(lanes_app)
    lane = settings.lane("batch")
    assert lane is not None
    redis_client(lanes_app).hset("lanes:terms", "batch:m", budget_for(settings, lane, "m").terms)
    controls.set_limits(lanes_app, {"rpm": 600, "concurrency": 50}, model="m")
    controls.set_limits(lanes_app, {"floor": 0.6}, lane="batch")
    controls.pause(lanes_app, "normal", by="ann@web1", for_s=600)
    controls.drain(lanes_app, "batch", by="bob@web1")
    seen = Overview(lanes_app, "celery").look()
    requests, calls = ({each["dimension"]: each for each in seen["budgets"]}[name] for name in ("requests", "calls"))
    assert requests["floors"] == pytest.approx({"critical": 0, "normal": 0.25 * 9.8, "batch": 0.6 * 9.8})
    assert calls["floors"]["batch"] == pytest.approx(50 * 0.6 * CALLS_FLOOR)
    assert seen["lanes"]["normal"]["paused"][0]["by"] == "ann@web1"
    assert seen["lanes"]["batch"]["draining"][0]["by"] == "bob@web1"


def test_a_floor_of_calls_is_what_the_scheduler_leaves() -> None:
    """The one number that is written down twice."""
    library = (ROOT / "celery_app/scheduler/scripts/lib/calls.lua").read_text()
    found = re.search(r"^local CALLS_FLOOR = ([\d.]+)$", library, re.MULTILINE)
    assert found
    assert float(found[1]) == CALLS_FLOOR
