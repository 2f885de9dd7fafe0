from typing import Any

import pytest
from celery import Celery, Task
from kombu import Queue

from celery_app import LANES, create_app, install
from celery_app.errors import UnknownLane
from celery_app.lanes import BATCH, CRITICAL, NORMAL
from celery_app.routing import DEADLINE_AT, SUBMITTED_AT, stamped
from celery_app.settings import Settings
from tasks import LaneTask

#: A project with a queue, routes, a serializer and workers of its own.
CONFIGURATION = {
    "task_queues": [Queue("emails", routing_key="emails")],
    "task_routes": {"proj.report": {"queue": "batch"}, "proj.mail": {"queue": "emails"}, "proj.nightly": "batches"},
    "task_serializer": "pickle",
    "worker_prefetch_multiplier": 8,
    "worker_concurrency": 3,
}


def one() -> int:
    """What a task does."""
    return 1


@pytest.fixture
def app():
    """An application with lanes; no test here sends anything."""
    return create_app(Settings())


def route(app: Celery, name: str = "any.task", task: Any = None, **options: Any) -> dict[str, Any]:
    """Return where and how a job would be sent."""
    routed: dict[str, Any] = app.amqp.router.route(options, name, (), {}, task)
    return routed


@pytest.mark.parametrize("lane", LANES, ids=lambda lane: lane.name)
def test_a_job_gets_the_priority_of_its_lane(app, lane):
    """Nobody writes a priority number at a call site."""
    options = route(app, queue=lane.name)

    assert options["priority"] == lane.priority
    assert options["queue"].name == lane.name


def test_a_lane_has_an_exchange_and_a_key_of_its_own(app):
    """Without them three queues would share one binding, and each job sent by exchange would reach all three."""
    queues = {name: app.amqp.queues[name] for name in ("critical", "normal", "batch")}

    assert {name: (queue.exchange.name, queue.routing_key) for name, queue in queues.items()} == {
        name: (name, name) for name in queues
    }


def test_a_lane_task_without_a_queue_goes_to_normal(app):
    """Neither the fastest lane by accident nor the slowest."""
    assert route(app, task=LaneTask())["queue"].name == NORMAL.name


def test_an_unknown_queue_is_refused_naming_the_lanes(app):
    """A typo fails where it is made instead of filling a queue that nobody serves."""
    with pytest.raises(UnknownLane, match=r"'critcal' \(did you mean 'critical'\?\).*critical, normal, batch"):
        app.send_task("tasks.create_message", queue="critcal")


def test_times_are_stamped_once():
    """A job that comes back keeps the time it was first submitted and the deadline that follows from it."""
    first = stamped(CRITICAL, None, now=1000.0)
    again = stamped(CRITICAL, first, now=2000.0)

    assert first == again == {SUBMITTED_AT: 1000.0, DEADLINE_AT: 1000.0 + (CRITICAL.deadline or 0)}


def test_a_lane_without_deadline_stamps_none():
    """A backlog is no failure."""
    assert DEADLINE_AT not in stamped(BATCH, {"x": 1}, now=1.0)


def test_a_caller_may_set_a_deadline(app):
    """The caller's own header wins over the lane's default, and other headers stay."""
    headers = route(app, queue="critical", headers={DEADLINE_AT: 5.0, "mine": 1})["headers"]

    assert headers[DEADLINE_AT] == 5.0
    assert headers["mine"] == 1


class TestProject:
    """A project's own application with lanes installed."""

    @pytest.fixture
    def app(self):
        """A project with a queue, routes, a serializer and a prefetch of its own."""
        project = Celery("proj", set_as_current=False, fixups=[])
        project.conf.update(CONFIGURATION)
        install(project, Settings())
        return project

    def test_its_routes_still_hold(self, app):
        """A route of the project may lead to a lane, and gets the lane's priority there."""
        assert route(app, "proj.report")["priority"] == BATCH.priority
        assert "priority" not in route(app, "proj.mail")

    @pytest.mark.parametrize("name", ["critcal", "criticall", "Batch", "bacth", "normla", "batchs"])
    def test_a_misspelt_lane_is_refused(self, app, name):
        """Celery would make a queue that nobody ever serves."""
        with pytest.raises(UnknownLane, match="did you mean"):
            route(app, queue=name)

    def test_a_queue_that_its_routes_name_is_its_own(self, app):
        """However much its name looks like a lane's, the project has said that there is one."""
        assert route(app, "proj.nightly")["queue"].name == "batches"
        assert route(app, queue="batches")["queue"].name == "batches"

    def test_installing_too_late_is_refused(self):
        """An application that has declared its queues already would keep the old ones."""
        project = Celery("late", set_as_current=False, fixups=[])
        assert project.amqp.queues

        with pytest.raises(RuntimeError, match="before the application's first use"):
            install(project)


def test_lane_tasks_bring_along_what_they_need():
    """Whatever the project has set for its own tasks, its lane tasks are late to acknowledge, kept, and JSON."""
    project = Celery("proj", set_as_current=False, fixups=[], namespace="CELERY")
    settings = {
        "CELERY_TASK_ACKS_LATE": False,
        "CELERY_TASK_IGNORE_RESULT": True,
        "CELERY_TASK_REJECT_ON_WORKER_LOST": False,
        "CELERY_TASK_SERIALIZER": "pickle",
    }
    project.config_from_object(settings, namespace="CELERY")
    install(project, Settings())
    own, ours = project.task(one, name="proj.own"), project.task(one, name="proj.ours", base=LaneTask)

    for task, expected in ((own, (False, True, False, "pickle")), (ours, (True, False, True, "json"))):
        assert (task.acks_late, task.ignore_result, task.reject_on_worker_lost, task.serializer) == expected


def test_a_lane_task_is_the_projects_task_too():
    """Its class inherits from the application's own: a request's context, a tenant's schema, ``delay_on_commit``."""

    class ProjectTask(Task):
        abstract = True

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return "in context", super().__call__(*args, **kwargs)

    project = Celery("proj", set_as_current=False, fixups=[], task_cls=ProjectTask)
    install(project, Settings())
    ours = project.task(one, name="proj.ours", base=LaneTask)
    shared = project.tasks["tasks.create_message"]

    assert ours() == ("in context", 1)
    assert isinstance(shared, ProjectTask)
    assert isinstance(shared, LaneTask)
