"""`install(app)` changes nothing of a project's configuration."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery
from conftest import close_backend, close_pool
from kombu import Queue, pools
from redis import Redis

from celery_app import install
from celery_app.demo.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


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
def made(monkeypatch: pytest.MonkeyPatch, broker_url: str) -> Iterator[Callable[..., Celery]]:
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
        close_backend(app)
        close_pool(app)
    pools.reset()
    for app in apps:
        app.close()


CONFIGURED = [_nothing, _plain, _in_lower_case, _namespaced]


@pytest.mark.parametrize("configure", CONFIGURED)
def test_no_setting_changes(made: Any, configure: Any) -> None:
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
def test_no_setting_changes_where_it_was_read_before(made: Any, configure: Any) -> None:
    """An application that has read its configuration already keeps it, too."""
    app = made(configure)
    before = _configuration(app)
    install(app)
    assert _configuration(app) == before


def test_what_is_set_afterwards_is_the_projects(made: Any) -> None:
    """A setting that the project changes later is changed for whoever asks."""
    app = made(_plain)
    install(app)
    _ = app.conf.task_routes
    elsewhere = f"redis://127.0.0.1:{free_port()}/3"
    app.conf.update(broker_url=elsewhere, task_acks_late=True, accept_content=["json"])
    assert (app.conf.task_acks_late, app.conf.accept_content) == (True, ["json"])
    assert app.connection_for_write().virtual_host == "3"


@pytest.mark.parametrize("configure", CONFIGURED)
def test_the_projects_queues_and_its_backend_stay(made: Any, broker_url: str, configure: Any) -> None:
    """A worker without `-Q` consumes from what it consumed from, and results go where they went."""
    stock, lanes = made(configure), made(configure)
    install(lanes)
    assert set(lanes.amqp.queues.consume_from) == set(stock.amqp.queues.consume_from)
    assert type(lanes.backend) is type(stock.backend)
    for app in (stock, lanes):
        app.send_task("nobody.has.it", queue="adhoc", serializer="json")
    with Redis.from_url(broker_url) as client:
        assert client.llen("adhoc") == 2
