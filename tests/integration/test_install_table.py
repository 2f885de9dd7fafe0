"""`install(app)` changes nothing of a project's configuration."""

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery, Task
from celery.backends.redis import RedisBackend
from kombu import Queue, pools
from redis import Redis

from celery_app import install
from tasks import LaneTask

#: Settings that a living project may well have; each was overridden once.
THEIRS: dict[str, Any] = {
    "accept_content": ["pickle", "json", "yaml"],
    "broker_pool_limit": 3,
    "broker_transport_options": {"visibility_timeout": 99, "priority_steps": [0, 5]},
    "enable_utc": False,
    "include": ["json"],
    "result_accept_content": ["pickle"],
    "result_backend_transport_options": {"global_keyprefix": "theirs_"},
    "result_serializer": "pickle",
    "task_acks_late": False,
    "task_always_eager": False,
    "task_create_missing_queues": True,
    "task_default_queue": "web",
    "task_ignore_result": True,
    "task_publish_retry_policy": {"max_retries": 9},
    "task_queues": [Queue("web", routing_key="web"), Queue("emails", routing_key="emails")],
    "task_reject_on_worker_lost": None,
    "task_routes": [{"a.*": {"queue": "emails"}}, {re.compile("b"): "reports"}, lambda *_, **__: None],
    "task_send_sent_event": False,
    "task_serializer": "pickle",
    "task_time_limit": 30,
    "worker_concurrency": 7,
    "worker_consumer": "celery.worker.consumer:Consumer",
    "worker_pool": "prefork",
    "worker_prefetch_multiplier": 4,
}


def _plain(app: Celery) -> None:
    app.conf.update(THEIRS)


def _namespaced(app: Celery) -> None:
    """As Django's settings module has it."""
    app.config_from_object(SimpleNamespace(**{f"CELERY_{k.upper()}": v for k, v in THEIRS.items()}), namespace="CELERY")


def _in_lower_case(app: Celery) -> None:
    """As `celeryconfig.py` has it."""
    app.config_from_object(SimpleNamespace(**THEIRS))


def _nothing(app: Celery) -> None:
    """A project that takes Celery's defaults."""


def _configuration(app: Celery) -> dict[str, Any]:
    """Return every setting that Celery knows or the project gave, as Celery itself would look it up."""
    return {key: app.conf[key] for key in app.conf if not key.startswith("__")}  # a module has those, too


@pytest.fixture
def made(monkeypatch, broker_url):
    """Makes applications of a project, configured in one of its ways."""
    monkeypatch.setenv("EZAI_API_KEY", "opens-nothing")
    apps: list[Celery] = []

    def make(configure: Callable[[Celery], None]) -> Celery:
        app = Celery("theirs", broker=broker_url, backend=broker_url, set_as_current=False)
        configure(app)
        apps.append(app)
        return app

    yield make
    for app in apps:
        if isinstance(app.backend, RedisBackend):
            app.backend.result_consumer.stop()
            app.backend.client.connection_pool.disconnect()
        app.pool.force_close_all()
    pools.reset()
    for app in apps:
        app.close()


CONFIGURED = [_nothing, _plain, _in_lower_case, _namespaced]


@pytest.mark.parametrize("configure", CONFIGURED)
def test_no_setting_changes(made, configure):
    """Key by key, the configuration with the lanes is the one without them, before and after its first use."""
    stock, lanes = made(configure), made(configure)
    install(lanes)
    assert _configuration(lanes) == _configuration(stock)
    for app in (stock, lanes):
        app.finalize()
        _ = app.amqp.queues, app.backend, app.amqp.router
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1)
    assert _configuration(lanes) == _configuration(stock)


@pytest.mark.parametrize("configure", CONFIGURED)
def test_no_setting_changes_where_it_was_read_before(made, configure):
    """An application that has read its configuration already keeps it, too."""
    app = made(configure)
    before = _configuration(app)
    install(app)
    assert _configuration(app) == before


def test_what_is_set_afterwards_is_the_projects(made, dead_port):
    """A setting that the project changes later is changed for whoever asks."""
    app = made(_plain)
    install(app)
    _ = app.conf.task_routes
    elsewhere = f"redis://127.0.0.1:{dead_port}/3"
    app.conf.update(broker_url=elsewhere, task_acks_late=True, accept_content=["json"])
    assert (app.conf.task_acks_late, app.conf.accept_content) == (True, ["json"])
    assert app.connection_for_write().virtual_host == "3"


@pytest.mark.parametrize("configure", CONFIGURED)
def test_the_projects_queues_and_its_backend_stay(made, broker_url, configure):
    """A worker without `-Q` consumes from what it consumed from, and results go where they went."""
    stock, lanes = made(configure), made(configure)
    install(lanes)
    assert set(lanes.amqp.queues.consume_from) == set(stock.amqp.queues.consume_from)
    assert type(lanes.backend) is type(stock.backend)
    for app in (stock, lanes):
        app.send_task("nobody.has.it", queue="adhoc", serializer="json")
    with Redis.from_url(broker_url) as client:
        assert client.llen("adhoc") == 2


INSTALL = Path(__file__).parents[2] / "docs" / "install.md"


def _table(heading: str) -> list[tuple[str, str]]:
    """Return (what, where) of each row of the table under a heading of docs/install.md."""
    section = INSTALL.read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [(row[0].strip(), row[1].strip()) for row in rows[2:]]


def _shape(value: Any) -> Any:
    """What of an attribute can be compared between two applications: containers' contents, else the class."""
    if isinstance(value, dict):
        return {key: _shape(each) for key, each in value.items()}
    if isinstance(value, set | list | tuple):
        return sorted(map(str, value))
    if isinstance(value, str | int | None):
        return value
    return type(value), _shape(getattr(value, "override_backends", None))


def _unlike(stock: Celery, lanes: Celery) -> set[str]:
    """Return the attributes of the application that differ."""
    one, two = ({key: _shape(value) for key, value in vars(app).items()} for app in (stock, lanes))
    # A shared task has a class for each application; which tasks there are is what counts.
    one["_tasks"], two["_tasks"] = set(stock.tasks), set(lanes.tasks)
    missing = object()
    return {key for key in one.keys() | two.keys() if one.get(key, missing) != two.get(key, missing)}


#: Where an attribute of the application stands in the table under the name that people use.
SHOWN_AS = {"amqp_cls": "amqp"}


def test_the_table_names_whatever_of_the_application_changes(made):
    """Each attribute that differs after `install` has its row, and each row its attribute."""
    stock, lanes = made(_plain), made(_plain)
    install(lanes)
    for app in (stock, lanes):
        app.finalize()
        _ = app.conf.task_routes, app.amqp.queues, app.amqp.router, app.backend
    named = set(re.findall(r"`app\.(\w+)", " ".join(where for _, where in _table("What `install(app)` changes"))))
    unlike = {SHOWN_AS.get(name, name) for name in _unlike(stock, lanes)}
    # A signal is the same; who hears of it is not.
    if len(lanes.on_after_configure.receivers) > len(stock.on_after_configure.receivers):
        unlike.add("on_after_configure")
    # What is read when it is asked for is not there yet.
    assert unlike - named == set()
    assert {name for name in named - unlike if not name.startswith("lanes_")} == set()


def test_the_table_of_task_attributes_is_whole():
    """No attribute of Celery's tasks differs in a lane task that the table does not name."""
    named = {what.strip("`").partition(" = ")[0] for what, _ in _table("What a lane task has")}
    plain = str | int | float | None
    differs = {
        name
        for name, value in vars(LaneTask).items()
        if hasattr(Task, name) and isinstance(value, plain) and value != getattr(Task, name) and name[:1] != "_"
    }
    assert differs - {"abstract"} - named == set()
