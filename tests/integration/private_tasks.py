"""A project whose tasks get prompts for arguments; ``celery -A private_tasks`` runs its workers."""

import os
import time
from typing import Any

from celery import Celery
from celery.exceptions import Reject

from celery_app import install
from celery_app.connections.redis_client import redis_client
from tasks import LaneTask

app = Celery("private_tasks", set_as_current=False, broker=os.environ.get("CELERY_BROKER_URL"))
app.conf.update(
    result_backend=os.environ.get("CELERY_BROKER_URL"),  # for its ordinary tasks, too
    result_extended=True,
    task_send_sent_event=True,
    worker_send_task_events=True,
)
install(app)

#: What no answer's beginning may show either.
ANSWER = "Mirabilis"

#: Seconds that a job waits at most for leave to end.
IN_TIME_S = 30.0


@app.task(bind=True, base=LaneTask, name="private.summarise", shared=False)
def summarise(self: LaneTask, text: str, length: int = 3, **more: Any) -> str:
    """Return something as private as the text."""
    if more.pop("again", False):
        raise self.retry(args=(text,), kwargs={"length": length + 1}, countdown=0.5)
    return f"{ANSWER} {length}"


@app.task(bind=True, base=LaneTask, name="private.hold", shared=False)
def hold(self: LaneTask, text: str) -> str:
    """Stay in the slot until somebody lets go."""
    end = time.monotonic() + IN_TIME_S
    while not redis_client(self.app).exists("let go") and time.monotonic() < end:
        time.sleep(0.02)
    return ANSWER


@app.task(bind=True, base=LaneTask, name="private.fail", shared=False)
def fail(self: LaneTask, text: str) -> str:
    """Fail in a way that repeats nothing."""
    raise LookupError("no such patient")


@app.task(base=LaneTask, name="private.reject", shared=False)
def reject(text: str) -> None:
    """Be refused by the task itself."""
    raise Reject("not for me", requeue=False)


@app.task(base=LaneTask, name="private.shown", shows_arguments=True, resultrepr_maxsize=1024, shared=False)
def shown(text: str) -> str:
    """Have nothing to hide."""
    return f"shown: {text}"


class Named(LaneTask):
    """Says itself what may be shown."""

    abstract = True

    def describe(self, args: Any, kwargs: Any) -> str:
        """Show the first word."""
        return f"about {args[0].split()[0]}"


@app.task(base=Named, name="private.named", shared=False)
def named(text: str) -> None:
    """Do nothing."""


@app.task(name="private.ordinary", shared=False)
def ordinary(text: str) -> str:
    """Be no lane task at all."""
    return f"ordinary: {text}"
