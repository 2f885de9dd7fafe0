"""Celery's limits on tasks in lanes, where jobs are submitted."""

from typing import Any

import pytest
from celery import Celery, _state

from celery_app import install
from celery_app.errors import UnsupportedTask
from celery_app.jobs.limits import limited_tasks
from celery_app.testing import in_process
from tasks import LaneTask, create_message

CALL: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}


def own() -> str:
    """Be a task that is in no lane."""
    return "own"


def lane() -> str:
    """Be a task in lanes."""
    return "lane"


def project(**conf: Any) -> Celery:
    """Return a project's application with a task of its own, and one in lanes."""
    before = _state.default_app
    app = Celery("limits", broker="memory://", set_as_current=False)
    app.conf.update(conf)
    install(app)
    _state.default_app = before
    app.task(name="limits.own", shared=False)(own)
    app.task(name="limits.lane", base=LaneTask, shared=False)(lane)
    return app


@pytest.mark.parametrize(
    "conf",
    [
        {"task_default_rate_limit": "10/m"},
        {"task_annotations": {"*": {"rate_limit": "10/m", "time_limit": 60}}},
        {"task_annotations": [{"*": {"rate_limit": "10/m"}}, {"limits.own": {"rate_limit": "1/s"}}]},
        {"task_time_limit": 60, "task_soft_time_limit": 50},
    ],
    ids=["default", "annotation", "annotations", "time limits"],
)
def test_what_a_project_says_of_all_its_tasks_ends_before_the_lanes(conf):
    """The project's own tasks keep it, and nothing breaks."""
    app = project(**conf)
    others, ours = app.tasks["limits.own"], app.tasks["limits.lane"]

    assert others.rate_limit or others.time_limit
    assert (ours.rate_limit, ours.time_limit, ours.soft_time_limit) == (None, None, None)
    assert app.tasks[create_message.name].rate_limit is None
    assert list(limited_tasks(app, threads=True)) == []
    with in_process(app):
        assert ours.delay().get() == "lane"


def test_a_rate_limit_on_a_lane_task_is_refused_where_a_job_is_submitted():
    """Each time, with the reason and with what does it right; also where an annotation names the task."""
    app = project(task_annotations={"limits.lane": {"rate_limit": "10/m"}})

    @app.task(name="limits.declared", base=LaneTask, rate_limit="10/m", shared=False)
    def declared() -> None:
        """Never run."""

    with in_process(app):
        for task in (declared, app.tasks["limits.lane"]):
            for _ in range(2):
                with pytest.raises(UnsupportedTask, match=r"park its jobs in the slots.*EZAI_RPM.*EZAI_LIMITS"):
                    task.delay()
    assert len(list(limited_tasks(app, threads=True))) == 2


def test_a_time_limit_on_a_job_is_refused():
    """Nobody can end a thread, and a limit that is not kept is a lie; the lane's own is kept."""
    app = project()
    ours = app.tasks["limits.lane"]
    with in_process(app):
        for limit in ({"time_limit": 30}, {"soft_time_limit": 20}):
            with pytest.raises(UnsupportedTask, match="CALL_TIMEOUT"):
                ours.apply_async(**limit)
            with pytest.raises(UnsupportedTask, match="CALL_TIMEOUT"):
                app.tasks[create_message.name].apply_async(kwargs=CALL, **limit)


def test_a_time_limit_that_a_task_declares_is_for_a_pool_of_processes():
    """There it is kept; a worker on threads refuses it."""
    app = project()
    app.task(name="limits.timed", base=LaneTask, time_limit=30, shared=False)(lane)

    assert list(limited_tasks(app, threads=False)) == []
    (problem,) = limited_tasks(app, threads=True)
    assert "limits.timed" in problem
    with in_process(app):
        assert app.tasks["limits.timed"].delay().successful()
