"""The tasks that the tests' workers run; each writes into the diary when it starts and when it ends."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from celery import Celery, signals
from celery.exceptions import Reject

from broker_kit.diary import Diary

#: Seconds that a job waits at a gate at most.
AT_GATE = 60.0

_diaries: dict[int, Diary] = {}


def diary() -> Diary:
    """Return this process's diary; a pool's process must not share its parent's connection."""
    return _diaries.setdefault(os.getpid(), Diary(os.environ["KIT_DIARY_URL"]))


_times: list[tuple[float, float]] = []


@signals.worker_shutdown.connect
def _write_times(**_: Any) -> None:
    for times in _times:
        diary().write("times", ":".join(map(str, times)), "-")


@signals.worker_ready.connect
def _ready(sender: Any, **_: Any) -> None:
    diary().write("ready", "-", sender.hostname)


def put_jobs_on(app: Celery, lane_task: type | None = None) -> None:  # noqa: C901 - a list of small tasks
    """Declare the tasks on an application; with `lane_task`, also those that only work in lanes."""

    @app.task(name="kit.job", bind=True, ignore_result=True)
    def job(self: Any, n: Any, seconds: float = 0.0, *_: Any, **__: Any) -> None:
        diary().write("start", n, self.request.hostname)
        time.sleep(seconds)
        diary().write_end(n, self.request.hostname)

    @app.task(name="kit.nothing", ignore_result=True)
    def nothing() -> None:
        """Do nothing: for measuring the broker alone."""

    @app.task(name="kit.nap", ignore_result=True)
    def nap(seconds: float) -> None:
        time.sleep(seconds)

    @app.task(name="kit.timed", ignore_result=True)
    def timed(seconds: float) -> None:
        """Sleep; the times reach the diary when the worker ends, so that writing them slows nothing down."""
        start = time.time()
        time.sleep(seconds)
        _times.append((start, time.time()))

    @app.task(name="kit.echo")
    def echo(value: Any, *_: Any) -> Any:
        return value

    @app.task(name="kit.gated", bind=True)
    def gated(self: Any, n: Any, gate: str) -> Any:
        diary().write("start", n, self.request.hostname)
        diary().wait_at_gate(gate, AT_GATE)
        diary().write("end", n, self.request.hostname)
        return n

    @app.task(name="kit.rejected", bind=True)
    def rejected(self: Any, n: Any) -> None:
        diary().write("start", n, self.request.hostname)
        raise Reject("not now", requeue=True)

    @app.task(name="kit.killer", bind=True)
    def killer(self: Any, n: Any, times: int = 1) -> None:
        """Kill the process that runs it, the first few times."""
        diary().write("start", n, self.request.hostname)
        if diary().client.incr(f"killed:{n}") <= times:
            os.kill(os.getpid(), signal.SIGKILL)
        diary().write("end", n, self.request.hostname)

    if lane_task is not None:
        _put_lane_jobs_on(app, lane_task)


def _put_lane_jobs_on(app: Celery, lane_task: type) -> None:
    @app.task(name="kit.retrying", bind=True, base=lane_task, max_retries=20)
    def retrying(self: Any, n: Any, delays: list[float], *_: Any, **__: Any) -> Any:
        """Retry after each of the delays, then return what the job says about itself."""
        request = self.request
        diary().write("start", n, request.hostname)
        if request.retries < len(delays):
            raise self.retry(countdown=delays[request.retries])
        diary().write("end", n, request.hostname)
        info = request.delivery_info
        return {"id": request.id, "lane": info["routing_key"], "priority": info["priority"], "retries": request.retries}

    @app.task(name="kit.failing", bind=True, base=lane_task)
    def failing(self: Any, n: Any, gate: str, retries: int | None) -> None:
        """Fail at a gate's opening: with retries left, without any, or (None) at once."""
        diary().write("start", n, self.request.hostname)
        diary().wait_at_gate(gate, AT_GATE)
        diary().write("end", n, self.request.hostname)
        if retries is None:
            raise ValueError
        raise self.retry(countdown=0, max_retries=retries)

    @app.task(name="kit.returning", bind=True, base=lane_task, ignore_result=True)
    def returning(self: Any, n: Any, delay: float) -> None:
        """Return to the lane once, and note when it is due."""
        if self.request.retries:
            diary().write("again", n, self.request.hostname)
            return
        diary().write("due", f"{n}:{time.time() + delay}", self.request.hostname)
        raise self.retry(countdown=delay)
