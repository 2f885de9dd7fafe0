"""A project whose tasks fail for good while Redis says so; ``celery -A dead_tasks`` runs its workers."""

import os

from celery import Celery

from celery_app import install
from celery_app.connections.redis_client import redis_client
from tasks import LaneTask

app = Celery("dead_tasks", set_as_current=False, backend=os.environ.get("CELERY_BROKER_URL"))  # chords want one
install(app)


@app.task(bind=True, base=LaneTask, name="dead.part", max_retries=0)
def part(self: LaneTask, text: str) -> str:
    """Return the text; while things are broken, fail with it in the error's message and in its traceback."""
    if redis_client(self.app).exists("broken"):
        raise self.retry(exc=ValueError(f'{text}\n  File "{text}", line 1, in {text}'))
    return text


@app.task(base=LaneTask, name="dead.join")
def join(parts: list[str]) -> str:
    """Be the body of a chord."""
    return " ".join(parts)


class OwnEnding(LaneTask):
    """A base whose project has an ending of its own, which does not call ours and breaks."""

    def on_failure(self, *_: object) -> None:
        """Break, as a project's own code may."""
        raise LookupError


@app.task(bind=True, base=OwnEnding, name="dead.own_ending", max_retries=0)
def own_ending(self: LaneTask) -> None:
    """Fail for good."""
    raise self.retry(exc=ValueError())
