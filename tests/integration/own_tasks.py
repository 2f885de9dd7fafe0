"""A project with tasks of its own around SDK calls of its own; ``celery -A own_tasks`` runs its workers."""

import functools
import json
import os
from typing import Any

from anthropic import Anthropic
from celery import Celery
from kit.client_rig import params

from celery_app import install
from celery_app.connections.redis_client import redis_client
from tasks import LaneTask, create_message

app = Celery("own_tasks", set_as_current=False)
app.conf.result_backend = os.environ.get("CELERY_BROKER_URL")
install(app)


@functools.cache
def sdk(url: str) -> Anthropic:
    """Return a client as projects make them."""
    return Anthropic(api_key=os.environ["OWN_KEY"], base_url=url, max_retries=0)


def call(task: LaneTask, fault: str | None, text: str = "hello", url: str = "", model: str = "m") -> Any:
    """Make an admitted call that meets a fault at the API."""
    with task.admit(input_tokens=10, model=model) as admitted:
        client = sdk(url or os.environ["OWN_URL"])
        message = client.messages.create(**params(text, fault), timeout=task.seconds_left())
        admitted.answered(message)
    return message.content[0].text


@app.task(bind=True, base=LaneTask, name="own.ask")
def ask(self: LaneTask, fault: str | None = None, text: str = "hello", url: str = "", model: str = "m") -> str:
    """Ask, and leave a mark when the block has been left."""
    answer: str = call(self, fault, text, url, model)
    redis_client(self.app).incr("left the block")
    return answer


@app.task(bind=True, base=LaneTask, name="own.read")
def read(self: LaneTask) -> Any:
    """Take the model's words for JSON, which they are not."""
    with self.admit(model="m") as admitted:
        message = sdk(os.environ["OWN_URL"]).messages.create(**params())
        admitted.answered(message)
        return json.loads(message.content[0].text)


@app.task(bind=True, base=LaneTask, name="own.broken")
def broken(self: LaneTask) -> None:
    """Fail in the block before any call."""
    with self.admit(model="m"):
        raise LookupError("none of the SDK's")


@app.task(bind=True, base=LaneTask, name="own.twice")
def twice(self: LaneTask, fault: str | None = None, model: str = "m") -> list[str]:
    """Make two calls, one after the other."""
    return [call(self, None, "first", model=model), call(self, fault, "second", model=model)]


@app.task(bind=True, base=LaneTask, name="own.nested")
def nested(self: LaneTask, fault: str | None = None) -> str:
    """Make a call within the block of another."""
    with self.admit(model="m"):
        return str(call(self, fault, "inner"))


@app.task(bind=True, name="own.plain")
def plain(self: Any) -> Any:
    """Call the lanes' task as a function, in a task that is in no lane."""
    redis_client(self.app).incr("began")
    return create_message(**params())


@app.task(bind=True, base=LaneTask, name="own.waits")
def waits(self: LaneTask) -> Any:
    """Leave a mark, and wait for the budget."""
    redis_client(self.app).incr("began")
    return call(self, None)
