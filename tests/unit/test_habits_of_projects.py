"""What a project may have of its own, and keeps: routers, queues, classes, addresses, arguments."""

import logging
import subprocess
import sys
from types import MappingProxyType
from typing import Any

import pytest
from celery import Celery, Task
from celery.app.amqp import AMQP, Queues
from kombu import Queue

from celery_app import create_app, install
from celery_app.jobs.descriptions import described
from celery_app.settings import Settings, settings_of
from tasks import LaneTask

BROKER = "redis://127.0.0.1:1/0"


class OldRouter:
    """A router as before Celery 4, which Celery still takes."""

    def route_for_task(self, task: str, _args: Any = None, _kwargs: Any = None) -> dict[str, Any] | None:
        """Route by name."""
        return {"queue": "emails"} if task.startswith("mail.") else None


def by_name(name: str, *_: Any, **__: Any) -> str | None:
    """Route by name."""
    return "emails" if name.startswith("mail.") else None


class Numbers(Queues):
    """A project's own table of queues."""


class Tenants(AMQP):
    """A project's own message layer: each message says whose it is."""

    queues_cls = Numbers

    def _create_task_sender(self) -> Any:
        send = super()._create_task_sender()

        def send_for_tenant(producer: Any, name: str, message: Any, **options: Any) -> Any:
            message.headers["tenant"] = "acme"
            return send(producer, name, message, **options)

        return send_for_tenant


class Counted(type):
    """A metaclass of a project's own."""


class Named(type):
    """Another."""


class OwnTask(Task, metaclass=Counted):  # type: ignore[type-arg]
    """A project's task class with a metaclass."""

    abstract = True


class OwnLaneTask(LaneTask, metaclass=Named):
    """A lane task with another."""

    abstract = True


def one() -> int:
    """What a task does."""
    return 1


def project(app: Celery | None = None, **conf: Any) -> Celery:
    """Return a project's application with lanes; nothing is sent."""
    app = app or Celery("proj", set_as_current=False, fixups=[])
    app.conf.update({"broker_url": BROKER, **conf})
    install(app)
    return app


def queue_of(app: Celery, name: str) -> str:
    """Return where a job of a task would be sent."""
    return str(app.amqp.router.route({}, name, (), {}, None)["queue"].name)


@pytest.mark.parametrize(
    "routes",
    [
        OldRouter(),
        [OldRouter(), {"other": "celery"}],
        f"{__name__}.OldRouter",
        (f"{__name__}.by_name",),
        [f"{__name__}:by_name", {"other": "celery"}],
        MappingProxyType({"mail.*": MappingProxyType({"queue": "emails"})}),
    ],
    ids=["old", "old in a list", "old by name", "function by name", "by name in a list", "mapping"],
)
def test_every_form_of_a_router_leads_where_it_did(routes):
    """Celery takes routers by name, and routers as of before Celery 4."""
    app = project(task_routes=routes)
    assert [queue_of(app, name) for name in ("mail.welcome", "other")] == ["emails", "celery"]


@pytest.mark.parametrize("name", ["batch2", "batch_1", "critical_eu", "critical-2", "normal-eu", "Batch-2"])
def test_a_lanes_name_with_something_beside_it_is_a_queue_of_ones_own(name):
    """Nobody writes that by mistake, and Celery makes such a queue."""
    app = project()
    assert app.amqp.queues[name].name == name
    app.amqp.queues.select([name])
    assert [*app.amqp.queues.consume_from] == [name]


def test_queues_may_be_any_mapping():
    """Celery takes any."""
    app = project(task_queues=MappingProxyType({"emails": {"exchange": "emails", "routing_key": "emails"}}))
    assert [*app.amqp.queues] == ["emails"]


def test_a_queue_by_a_lanes_name_is_told(caplog):
    """A project that had a queue `critical` before learns that it is the lane now, and what to do."""
    app = project(task_queues=[Queue("critical", routing_key="critical"), Queue("emails", routing_key="emails")])
    with caplog.at_level(logging.WARNING):
        assert [*app.amqp.queues] == ["emails"]
    (said,) = [record.getMessage() for record in caplog.records]
    assert "'critical' is a queue of this application" in said
    assert "-Q" in said


@pytest.mark.parametrize("queues", [None, [Queue("batch", routing_key="batch")]])
def test_a_default_queue_by_a_lanes_name_brings_no_other_lane(queues, caplog):
    """Its workers serve it as they did, and not two queues more; `celery purge` likewise."""
    app = project(task_default_queue="batch", task_queues=queues)
    with caplog.at_level(logging.WARNING):
        assert [*app.amqp.queues] == [*app.amqp.queues.consume_from] == ["batch"]
    assert app.amqp.queues["batch"].exchange.name == "batch"
    assert "'batch' is a queue of this application" in caplog.text


def test_an_application_of_lanes_alone_serves_them_all(caplog):
    """And hears nothing of it."""
    app = create_app()
    assert {*app.amqp.queues.consume_from} == {"critical", "normal", "batch"}
    assert caplog.text == ""
    assert app.amqp.Connection(hostname=BROKER).port == 1


@pytest.mark.parametrize("given", [Tenants, f"{__name__}:Tenants"])
def test_the_projects_message_layer_stays(given):
    """`Celery(amqp=…)` goes on doing what it did, for its own queues and for the lanes."""
    app = project(Celery("proj", set_as_current=False, fixups=[], amqp=given))
    assert isinstance(app.amqp, Tenants)
    assert isinstance(app.amqp.queues, Numbers)
    assert app.amqp.queues["critical"].name == "critical"


def test_a_class_of_applications_keeps_its_message_layer():
    """So does one that is set on a class."""

    class Tenant(Celery):
        amqp_cls = Tenants

    assert isinstance(project(Tenant("proj", set_as_current=False, fixups=[])).amqp, Tenants)
    assert isinstance(create_app().amqp, AMQP)


class TestTaskClasses:
    """Whatever class a project has its tasks made of, the lanes' tasks can be made of it, too."""

    def test_a_lane_task_for_all(self):
        """`Celery(task_cls=LaneTask)` says that every task is for lanes."""
        for own in (LaneTask, f"{LaneTask.__module__}:LaneTask", OwnLaneTask):
            app = project(Celery("proj", set_as_current=False, fixups=[], task_cls=own))
            task = app.task(one, name="proj.one", shared=False, base=LaneTask)
            assert isinstance(task, LaneTask)
            assert isinstance(task, app.Task)
            assert app.tasks["tasks.create_message"].in_lanes

    def test_metaclasses(self):
        """Those of the project's task class and of its lane task are both there."""
        app = project(Celery("proj", set_as_current=False, fixups=[], task_cls=OwnTask))
        app.task(one, name="proj.one", shared=False, base=OwnLaneTask)
        made = type(app.tasks["proj.one"])
        assert isinstance(made, Counted)
        assert isinstance(made, Named)


class TestAddresses:
    """The lanes are where the project sends its jobs."""

    @pytest.mark.parametrize("other", [{}, {"broker_url": "redis://127.0.0.1:2/0"}])
    def test_a_broker_to_write_to(self, other):
        """A project may name no broker but one to write to and one to read from."""
        app = Celery("proj", set_as_current=False, fixups=[])
        app.conf.update(broker_write_url=BROKER, broker_read_url=BROKER, **other)
        install(app)
        assert settings_of(app).broker_url == BROKER

    def test_several_brokers_have_one_place_for_results(self):
        """It is the first; Celery's backends know no list. Sentinels are one place by themselves."""
        app = project(broker_url=[BROKER, "redis://127.0.0.1:2/0"])
        assert settings_of(app).result_backend == BROKER
        sentinels = "sentinel://127.0.0.1:1/0?master_name=m;sentinel://127.0.0.1:2/0"
        assert Settings.from_environment(broker_url=sentinels).result_backend == sentinels


def test_arguments_may_be_deep_or_lead_back_to_themselves():
    """Pickle carries both, and a job that is sent by name alone is looked through for tasks of ours."""
    app = project()
    circle: list[Any] = []
    circle.append({"again": circle})
    deep: Any = {"task": "tasks.create_message"}
    for _ in range(10_000):
        deep = [deep]
    assert described(app, "else.where", (circle,), {}, in_lane=False) is None
    app.finalize()
    assert app.tasks["tasks.create_message"]
    assert described(app, "else.where", (circle, deep), {}, in_lane=False) is not None


def test_of_two_applications_the_client_takes_the_one_with_lanes():
    """Celery's current application is the one that was made last; in a fresh process, as both are its state."""
    code = (
        "from celery import Celery\nfrom celery_app import install\nfrom celery_app.client import Client\n"
        "with_lanes = Celery('with_lanes'); install(with_lanes)\n"
        "other = Celery('other')\n"
        "assert Client().app is with_lanes\nassert Client(with_lanes).app is with_lanes\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_an_application_without_lanes_is_told_so():
    """Where nobody has called `install`, the one without lanes is the project's, and it says what is missing."""
    code = "from celery import Celery\nfrom celery_app.client import Client\nother = Celery('other')\nClient().app\n"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert "has no lanes: call celery_app.install(app)" in done.stderr
