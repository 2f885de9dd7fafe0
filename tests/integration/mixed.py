"""A project whose worker serves a lane and queues of its own; ``celery -A mixed`` runs its workers.

Its own jobs are pickled, and nothing else is to be accepted. A routing key of one of its exchanges is called like a
lane.
"""

import json
import os
from typing import Any

import click
from celery import Celery
from celery.exceptions import Reject
from kombu import Exchange, Queue

from celery_app import install
from celery_app.connections.redis_client import redis_client
from tasks import LaneTask

app = Celery("mixed", set_as_current=False)
app.conf.update(
    accept_content=["pickle"],
    result_accept_content=["json", "pickle"],
    result_backend=os.environ.get("CELERY_BROKER_URL"),
    result_serializer="pickle",
    task_default_queue="own",
    task_queues=[
        Queue("own", routing_key="own"),
        Queue("topics", Exchange("topics", type="topic"), routing_key="critical"),
    ],
    task_serializer="pickle",
    **json.loads(os.environ.get("MIXED_CONF", "{}")),
)
install(app)


@app.task(name="mixed.own", bind=True, shared=False)
def own(self: Any, value: Any = None) -> list[Any]:
    """Be a task in no lane."""
    redis_client(app).rpush("mixed:ran", str(value))
    return [value, self.request.delivery_info["routing_key"]]


@app.task(name="mixed.thrown", acks_late=True, shared=False)
def thrown(value: str) -> None:
    """Throw itself away."""
    redis_client(app).rpush("mixed:ran", value)
    raise Reject("no use", requeue=False)


@app.task(name="mixed.lane", base=LaneTask, bind=True, shared=False)
def lane(self: Any) -> str:
    """Be a task in lanes."""
    return str(self.lane.name)


@click.group()
def cli() -> None:
    """Offer commands as Flask does."""


@cli.command()
def worker() -> None:
    """Make a worker in Python, by a command that is called as Celery's is."""
    made = app.Worker(pool="solo", queues="critical,own", concurrency=3, loglevel="error")
    click.echo(f"{made.pool_cls.__module__} {made.concurrency}")


if __name__ == "__main__":
    cli()
