"""The Celery application with lanes, and the way to put lanes on another project's application."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from celery import Celery, _state

from celery_app.configuration import configure
from celery_app.lanes import NORMAL
from celery_app.metrics.startup import record_in_workers
from celery_app.routing import LaneAMQP
from celery_app.worker import look_after_workers

if TYPE_CHECKING:
    from celery_app.settings import Settings


def create_app(settings: Settings | None = None) -> Celery:
    """Return a Celery application that has the lanes, and `tasks` in them.

    Args:
        settings: by default those of the environment and the application's configuration, as they are when asked for.

    Raises:
        InvalidSettings: when the application is first used, if they are wrong.
    """
    app = Celery("celery_app", set_as_current=False, fixups=[])
    _put_lanes_on(app, settings, default_queue=NORMAL.name)
    return app


def install(app: Celery, settings: Settings | None = None) -> None:
    """Put the lanes on a project's own Celery application; call it once, where the application is made.

    The project's queues and routes stay, behind the lanes, and `tasks.create_message` belongs to the application from
    then on. It also becomes the process's default application: a web server's threads would otherwise send shared
    tasks to one that nobody configured.

    Args:
        app: the project's application, with or without a configuration namespace.
        settings: by default those of the environment and the application's configuration, as they are when asked for.

    Raises:
        RuntimeError: if the application has sent or declared something already.
        InvalidSettings: when the application is first used, if they are wrong.
    """
    if "amqp" in vars(app):
        raise RuntimeError("install(app) has to come before the application's first use")
    _put_lanes_on(app, settings)
    app.set_default()


def _put_lanes_on(app: Celery, settings: Settings | None, default_queue: str | None = None) -> None:
    app.amqp_cls = LaneAMQP
    app.lanes_settings_given = settings
    app.lanes_configuring = threading.RLock()
    _make_backends_of_whole_configurations(app)
    look_after_workers(app)
    record_in_workers()

    def on_configured() -> dict[str, Any]:
        from celery_app.settings import settings_of  # pydantic is not wanted before the first use

        configure(app, settings_of(app), default_queue)
        return {}

    if app.configured:
        on_configured()
    else:
        # Celery asks for pending defaults once it has read the project's own configuration.
        app.add_defaults(on_configured)


def _make_backends_of_whole_configurations(app: Celery) -> None:
    """A thread that asks for its backend while another one configures would keep a disabled one for good."""
    make = app._get_backend  # noqa: SLF001 - the only place where each thread's backend is made

    def make_when_configured() -> Any:
        from celery_app.settings import settings_of  # pydantic is not wanted before the first use

        settings_of(app)
        return make()

    app._get_backend = make_when_configured  # noqa: SLF001


app = create_app()
if _state.default_app is None:
    # A script or a web server's thread without an application of its own sends its jobs through this one.
    app.set_default()
