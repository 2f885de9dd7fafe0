"""The Celery application with lanes, and the way to put lanes on another project's application."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from celery import Celery, _state, signals

from celery_app.composition import compose_tasks
from celery_app.configuration.showing import show_urls
from celery_app.lanes import NORMAL
from celery_app.messaging import LaneAMQP, beside_lanes
from celery_app.results.backend import BACKENDS, LANE_BACKENDS, LaneResults
from celery_app.worker.start import look_after_workers

if TYPE_CHECKING:
    from celery_app.settings import Settings


class LanesApp(Celery):
    """An application that has nothing but the lanes: whatever runs on it belongs to the broker until it is done."""

    has_only_lanes = True

    def __init__(self) -> None:
        """Configure what a project would have to choose."""
        super().__init__("celery_app", set_as_current=False, fixups=[], amqp=LaneAMQP)
        self.conf.update(
            task_acks_late=True,
            task_default_queue=NORMAL.name,
            task_reject_on_worker_lost=True,
        )

    def _get_backend(self) -> Any:
        """Keep results at the broker where no other place is named."""
        return super()._get_backend() if self.conf.result_backend else self.lanes_results.at_broker()


def create_app(settings: Settings | None = None) -> Celery:
    """Return a Celery application that has the lanes, and `tasks` in them.

    Args:
        settings: by default those of the environment and the application's configuration, as they are when asked for.

    Raises:
        InvalidSettings: when the lanes are first used, if they are wrong.
    """
    app = LanesApp()
    app.loader.override_backends = LANE_BACKENDS
    if settings is not None:
        app.conf.update(broker_url=settings.broker_url, result_backend=settings.result_backend)
    _put_lanes_on(app, settings)
    return app


def install(app: Celery, settings: Settings | None = None) -> None:
    """Put the lanes on a project's own Celery application; call it once, where the application is made.

    The project's configuration, queues, routes, tasks and workers stay as they are; docs/install.md has the table of
    what is added. `tasks.create_message` belongs to the application from then on. It also becomes the process's default
    application, unless there is one: a web server's threads would otherwise send shared tasks to one that nobody
    configured.

    Args:
        app: the project's application, with or without a configuration namespace.
        settings: by default those of the environment and the application's configuration, as they are when asked for.

    Raises:
        RuntimeError: if the application has sent or declared something already.
        InvalidSettings: when the lanes are first used, if they are wrong.
    """
    if "amqp" in vars(app):
        raise RuntimeError("install(app) has to come before the application's first use")
    app.amqp_cls = beside_lanes(app.amqp_cls)
    _put_lanes_on(app, settings)
    if _state.default_app is None or isinstance(_state.default_app, LanesApp):
        app.set_default()


def _put_lanes_on(app: Any, settings: Settings | None) -> None:
    app.lanes_settings_given = settings
    app.lanes_configuring = threading.RLock()
    app.lanes_results = LaneResults(app)
    app.loader.override_backends = {**BACKENDS, **app.loader.override_backends}
    compose_tasks(app)
    show_urls(app)
    look_after_workers(app)
    signals.import_modules.connect(_import_tasks, sender=app, weak=False, dispatch_uid=f"celery_app.{id(app)}")


def _import_tasks(**_: Any) -> None:
    """A worker, and whoever else loads an application's modules, knows our tasks."""
    import tasks  # noqa: F401 - it registers them


app = create_app()
if _state.default_app is None:
    # A script or a web server's thread without an application of its own sends its jobs through this one.
    app.set_default()
