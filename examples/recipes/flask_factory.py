"""The lanes in a Flask application that a factory makes."""

# proj/__init__.py
from celery import Celery, Task
from flask import Flask

from celery_app import ask, install


def celery_init_app(site):  # as Flask's documentation has it, and one line more
    class FlaskTask(Task):
        def __call__(self, *args, **kwargs):
            with site.app_context():
                return self.run(*args, **kwargs)

    celery = Celery(site.name, task_cls=FlaskTask)
    celery.config_from_object(site.config["CELERY"])
    install(celery)  # after the configuration, before set_default and any use
    celery.set_default()
    site.extensions["celery"] = celery
    return celery


def create_site():
    site = Flask(__name__)
    site.config["CELERY"] = {  # Celery's settings and the lanes', all in small letters
        "broker_url": "redis://localhost:6379/0",
        "ezai_base_url": "https://ezaiapi.com",
        "lanes_batch_capacity": 500,
    }
    celery_init_app(site)

    @site.get("/ask")
    def answer():
        messages = [{"role": "user", "content": "Hello"}]
        return ask(model="claude-haiku-4-5", max_tokens=99, messages=messages).content[0].text

    return site
