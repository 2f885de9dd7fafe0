"""The lane of a task that Flower has seen, by what its events say and by what it has kept."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from celery.events.state import Task
from flower.events import EventsState

from celery_app.flower.lane_column import SeenTask, recognise


@pytest.mark.parametrize(
    ("said", "lane"),
    [
        ({"routing_key": "batch"}, "batch"),  # at its submission
        ({"queue": "batch", "routing_key": "else"}, "batch"),
        ({"queue": "critical"}, "critical"),  # by its worker
        ({"queue": "celery"}, None),
        ({}, None),
    ],
)
def test_events_say_the_lane(said: dict[str, Any], lane: str | None) -> None:
    """Any event that names a lane will do; a queue that is none is no lane. It outlives Flower's database."""
    task = SeenTask("id", **said)
    assert (task.lane, task.as_dict()["lane"]) == (lane, lane)
    assert pickle.loads(pickle.dumps(task)).lane == lane  # noqa: S301 - ours


def test_tasks_that_flower_kept_before_it_knew_lanes_have_one() -> None:
    """A database of stock Flower's holds Celery's own tasks."""
    state = EventsState(max_tasks_in_memory=10)
    state.tasks["id"] = Task("id", routing_key="batch")
    recognise(state)
    assert state.tasks["id"].as_dict()["lane"] == "batch"
