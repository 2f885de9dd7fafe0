"""Flask's documented pattern for Celery (docs: "Background Tasks with Celery"), word for word where it can be."""

from __future__ import annotations

import os

from celery import Celery, Task
from flask import Flask


def create_app() -> Flask:
    """Make the application: what `flask run` and `make_celery` call."""
    app = Flask(__name__)
    app.config.from_mapping(
        CELERY={
            "broker_url": os.environ["SITE_BROKER"],
            "result_backend": os.environ["SITE_BROKER"],
            "task_ignore_result": True,
        },
        GREETING="hello from the context",
    )
    app.config.from_prefixed_env()
    celery_init_app(app)

    from example import views

    app.register_blueprint(views.bp)
    return app


def celery_init_app(app: Flask) -> Celery:
    """Make the Celery application of a Flask application."""

    class FlaskTask(Task):  # type: ignore[misc]
        def __call__(self, *args: object, **kwargs: object) -> object:
            with app.app_context():
                return self.run(*args, **kwargs)

    celery_app = Celery(app.name, task_cls=FlaskTask)
    celery_app.config_from_object(app.config["CELERY"])
    if os.environ.get("WITH_LANES"):
        from celery_app import install

        install(celery_app)
    celery_app.set_default()
    app.extensions["celery"] = celery_app
    return celery_app
