"""Which tasks' results Flower's API tells, by what it has seen of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from flower.events import EventsState

from celery_app import install
from celery_app.flower.lane_column import SeenTask
from celery_app.flower.pages import Result
from tasks import LaneTask


def nothing() -> None:
    """Do nothing."""


@pytest.fixture(scope="module")
def project() -> Any:
    """A project with lanes, and a task in none of them."""
    app = Celery("project", set_as_current=False, broker="redis://127.0.0.1:1/0")
    install(app)
    app.task(nothing, name="own", shared=False)
    app.task(nothing, name="laned", base=LaneTask, shared=False)
    app.finalize()
    return app


@pytest.mark.parametrize(
    ("seen", "is_private"),
    [
        (None, True),  # no event of it was heard, so it may be a lane's
        ({"queue": "batch"}, True),  # the one with its name was not
        ({"name": "own", "queue": "celery"}, False),
        ({"name": "own", "queue": "batch"}, True),
        ({"name": "laned", "queue": "batch"}, True),
        ({"name": "laned"}, True),
        ({"name": "elsewhere", "queue": "celery"}, False),  # of a worker that has other tasks
        ({"name": "elsewhere", "queue": "batch"}, True),
    ],
)
def test_what_may_be_a_lanes_is_not_told(project: Any, seen: dict[str, Any] | None, is_private: bool) -> None:
    """Results of a project's own tasks are shown; an answer is not, whatever of its events was missed."""
    state = EventsState(max_tasks_in_memory=10)
    if seen is not None:
        state.tasks["id"] = SeenTask("id", **seen)
    page = Result.__new__(Result)
    page.application = SimpleNamespace(events=SimpleNamespace(state=state), capp=project)
    assert page._is_private("id") is is_private
