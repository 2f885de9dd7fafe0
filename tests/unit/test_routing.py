from __future__ import annotations

from typing import Any

import pytest
from celery import Celery
from kombu import Queue

from celery_app import LANES, create_app, install
from celery_app.errors import UnknownLane
from celery_app.lanes import BATCH, CRITICAL, NORMAL
from celery_app.routing import DEADLINE_AT, SUBMITTED_AT, stamped
from celery_app.settings import Settings
from tasks import LaneTask


@pytest.fixture
def app() -> Celery:
    """An application with lanes; no test here sends anything."""
    return create_app(Settings())


def route(app: Celery, name: str = "any.task", task: Any = None, **options: Any) -> dict[str, Any]:
    """Return where and how a job would be sent."""
    routed: dict[str, Any] = app.amqp.router.route(options, name, (), {}, task)
    return routed


@pytest.mark.parametrize("lane", LANES, ids=lambda lane: lane.name)
def test_a_job_gets_the_priority_of_its_lane(app: Celery, lane: Any) -> None:
    """Nobody writes a priority number at a call site."""
    options = route(app, queue=lane.name)

    assert options["priority"] == lane.priority
    assert options["queue"].name == lane.name


def test_an_explicit_priority_stays(app: Celery) -> None:
    """A caller may order jobs within a lane."""
    assert route(app, queue="batch", priority=9)["priority"] == 9


def test_a_lane_has_an_exchange_and_a_key_of_its_own(app: Celery) -> None:
    """Without them three queues would share one binding, and each job sent by exchange would reach all three."""
    queues = {name: app.amqp.queues[name] for name in ("critical", "normal", "batch")}

    assert {name: (queue.exchange.name, queue.routing_key) for name, queue in queues.items()} == {
        name: (name, name) for name in queues
    }


def test_a_lane_task_without_a_queue_goes_to_normal(app: Celery) -> None:
    """Neither the fastest lane by accident nor the slowest."""
    assert route(app, task=LaneTask())["queue"].name == NORMAL.name


def test_an_unknown_queue_is_refused_naming_the_lanes(app: Celery) -> None:
    """A typo fails where it is made instead of filling a queue that nobody serves."""
    with pytest.raises(UnknownLane, match=r"'critcal' \(did you mean 'critical'\?\).*critical, normal, batch"):
        app.send_task("tasks.create_message", queue="critcal")


def test_times_are_stamped_once() -> None:
    """A job that comes back keeps the time it was first submitted and the deadline that follows from it."""
    first = stamped(CRITICAL, None, now=1000.0)
    again = stamped(CRITICAL, first, now=2000.0)

    assert first == again == {SUBMITTED_AT: 1000.0, DEADLINE_AT: 1000.0 + (CRITICAL.deadline or 0)}


def test_a_lane_without_deadline_stamps_none() -> None:
    """A backlog is no failure."""
    assert DEADLINE_AT not in stamped(BATCH, {"x": 1}, now=1.0)


def test_a_caller_may_set_a_deadline(app: Celery) -> None:
    """The caller's own header wins over the lane's default, and other headers stay."""
    headers = route(app, queue="critical", headers={DEADLINE_AT: 5.0, "mine": 1})["headers"]

    assert headers[DEADLINE_AT] == 5.0
    assert headers["mine"] == 1


class TestProject:
    """A project's own application with lanes installed."""

    @pytest.fixture
    def app(self) -> Celery:
        """A project with a queue, routes, a serializer and a prefetch of its own."""
        project = Celery("proj", set_as_current=False, fixups=[])
        project.conf.update(
            task_queues=[Queue("emails", routing_key="emails")],
            task_routes={"proj.report": {"queue": "batch"}, "proj.mail": {"queue": "emails"}},
            task_serializer="pickle",
            worker_prefetch_multiplier=8,
            worker_concurrency=3,
        )
        install(project, Settings())
        return project

    def test_its_routes_still_hold(self, app: Celery) -> None:
        """A route of the project may lead to a lane, and gets the lane's priority there."""
        assert route(app, "proj.report")["priority"] == BATCH.priority
        assert "priority" not in route(app, "proj.mail")

    def test_its_queues_stay_behind_the_lanes(self, app: Celery) -> None:
        """Its own queue, and the default queue Celery would have made, are still declared."""
        assert list(app.amqp.queues) == ["critical", "normal", "batch", "emails", "celery"]

    def test_what_the_lanes_need_is_set_and_the_rest_is_left(self, app: Celery) -> None:
        """JSON and a prefetch of one are no matter of taste; concurrency is."""
        assert app.conf.task_serializer == "json"
        assert app.conf.worker_prefetch_multiplier == 1
        assert app.conf.worker_concurrency == 3

    def test_installing_too_late_is_refused(self) -> None:
        """An application that has declared its queues already would keep the old ones."""
        project = Celery("late", set_as_current=False, fixups=[])
        assert project.amqp.queues

        with pytest.raises(RuntimeError, match="before the application's first use"):
            install(project)


def test_a_namespaced_configuration_is_respected() -> None:
    """Django's CELERY_ prefix reads the project's own values, and the lanes' needs still win."""
    project = Celery("proj", set_as_current=False, fixups=[], namespace="CELERY")
    project.config_from_object({"CELERY_TASK_ACKS_LATE": False, "CELERY_WORKER_CONCURRENCY": 7}, namespace="CELERY")
    install(project, Settings())

    assert project.conf.task_acks_late is True
    assert project.conf.worker_concurrency == 7
    assert project.conf.worker_pool == "threads"
