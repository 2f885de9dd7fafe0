"""A project that uses Celery by habit; ``celery -A habits`` runs its workers and its beat."""

import json
import os
import time
from typing import Any

from celery import Celery
from celery.result import allow_join_result
from kombu import Queue

from celery_app import Batch, ask, install, stream, submit
from celery_app.connections.redis_client import redis_client
from tasks import LaneTask

CALL: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}

app = Celery("habits", set_as_current=False)
app.conf.update(
    task_queues=[Queue("own")],
    task_default_queue="own",
    task_default_rate_limit=os.environ.get("HABITS_DEFAULT_RATE"),
    task_annotations={"*": {"rate_limit": os.environ["HABITS_RATE"]}} if "HABITS_RATE" in os.environ else None,
    beat_schedule=json.loads(os.environ.get("HABITS_SCHEDULE", "{}")),
    beat_max_loop_interval=0.2,
    result_backend=os.environ.get("CELERY_BROKER_URL"),
)
install(app)


@app.task(name="habits.own", shared=False)
def own(n: int = 0) -> float:
    """Be a task in no lane; return when it ran."""
    redis_client(app).rpush("habits:own", time.time())
    return time.time()


@app.task(name="habits.lane", base=LaneTask, rate_limit=os.environ.get("HABITS_LANE_RATE"), shared=False)
def lane(n: int = 0) -> float:
    """Be a task in lanes; return when it ran."""
    return time.time()


@app.task(name="habits.asks", base=LaneTask, shared=False)
def asks() -> str:
    """Wait for another job of the same workers."""
    return str(ask("normal", **CALL).id)


@app.task(name="habits.streams", base=LaneTask, shared=False)
def streams() -> str:
    """Read another job of the same workers."""
    return str(list(stream("normal", **CALL)))


@app.task(name="habits.collects", base=LaneTask, shared=False)
def collects(batch_id: str) -> int:
    """Wait for a batch."""
    return len(list(Batch.load(batch_id, app).results()))


@app.task(name="habits.gets", base=LaneTask, shared=False)
def gets() -> str:
    """Wait as Celery would not let it."""
    return str(submit("normal", **CALL).get())


@app.task(name="habits.asks_allowed", base=LaneTask, shared=False)
def asks_allowed() -> str:
    """Wait, and take the risk."""
    with allow_join_result():
        return str(ask("normal", **CALL).content[0].text)
