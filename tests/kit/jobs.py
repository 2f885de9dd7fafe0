"""The tasks that the tests' workers run; each writes into the event log when it starts and when it ends."""

import os
import signal
import time
from typing import Any

from celery import Celery, signals
from celery.exceptions import Reject

from kit.event_log import EventLog

#: Seconds that a job waits at a gate at most.
AT_GATE = 60.0

_diaries: dict[int, EventLog] = {}


def event_log() -> EventLog:
    """Return this process's event log; a pool's process must not share its parent's connection."""
    return _diaries.setdefault(os.getpid(), EventLog(os.environ["KIT_EVENT_LOG_URL"]))


_times: list[tuple[float, float]] = []


@signals.worker_shutdown.connect
def _write_times(**_: Any) -> None:
    for times in _times:
        event_log().write("times", ":".join(map(str, times)), "-")


@signals.worker_ready.connect
def _ready(sender: Any, **_: Any) -> None:
    event_log().write("ready", "-", sender.hostname)


def put_jobs_on(app: Celery, lane_task: type | None = None) -> None:  # noqa: C901 - a list of small tasks
    """Declare the tasks on an application; with `lane_task`, also those that only work in lanes."""

    @app.task(name="kit.job", bind=True, ignore_result=True)
    def job(self: Any, n: Any, seconds: float = 0.0, *_: Any, **__: Any) -> None:
        event_log().write("start", n, self.request.hostname)
        time.sleep(seconds)
        event_log().write_end(n, self.request.hostname)

    @app.task(name="kit.nothing", ignore_result=True)
    def nothing() -> None:
        """Do nothing: for measuring the broker alone."""

    @app.task(name="kit.nap", ignore_result=True)
    def nap(seconds: float) -> None:
        time.sleep(seconds)

    @app.task(name="kit.timed", ignore_result=True)
    def timed(seconds: float) -> None:
        """Sleep; the times reach the event log when the worker ends, so that writing them slows nothing down."""
        start = time.time()
        time.sleep(seconds)
        _times.append((start, time.time()))

    @app.task(name="kit.echo")
    def echo(value: Any, *_: Any) -> Any:
        return value

    @app.task(name="kit.gated", bind=True)
    def gated(self: Any, n: Any, gate: str) -> Any:
        event_log().write("start", n, self.request.hostname)
        event_log().wait_at_gate(gate, AT_GATE)
        event_log().write("end", n, self.request.hostname)
        return n

    @app.task(name="kit.nesting", bind=True)
    def nesting(self: Any, n: Any, gate: str) -> None:
        """Run another task within this one, then wait at a gate."""
        nothing.apply()
        gated.run(n, gate)

    @app.task(name="kit.rejected", bind=True)
    def rejected(self: Any, n: Any) -> None:
        event_log().write("start", n, self.request.hostname)
        raise Reject("not now", requeue=True)

    @app.task(name="kit.killer", bind=True)
    def killer(self: Any, n: Any, times: int = 1) -> None:
        """Kill the process that runs it, the first few times."""
        event_log().write("start", n, self.request.hostname)
        if event_log().client.incr(f"killed:{n}") <= times:
            os.kill(os.getpid(), signal.SIGKILL)
        event_log().write("end", n, self.request.hostname)

    if lane_task is not None:
        _put_lane_jobs_on(app, lane_task)


def _put_lane_jobs_on(app: Celery, lane_task: type) -> None:
    @app.task(name="kit.retrying", bind=True, base=lane_task, max_retries=20)
    def retrying(self: Any, n: Any, delays: list[float], *_: Any, **__: Any) -> Any:
        """Retry after each of the delays, then return what the job says about itself."""
        request = self.request
        event_log().write("start", n, request.hostname)
        if request.retries < len(delays):
            raise self.retry(countdown=delays[request.retries])
        event_log().write("end", n, request.hostname)
        info = request.delivery_info
        return {"id": request.id, "lane": info["routing_key"], "priority": info["priority"], "retries": request.retries}

    @app.task(name="kit.failing", bind=True, base=lane_task)
    def failing(self: Any, n: Any, gate: str, retries: int | None) -> None:
        """Fail at a gate's opening: with retries left, without any, or (None) at once."""
        event_log().write("start", n, self.request.hostname)
        event_log().wait_at_gate(gate, AT_GATE)
        event_log().write("end", n, self.request.hostname)
        if retries is None:
            raise ValueError
        raise self.retry(countdown=0, max_retries=retries)

    @app.task(name="kit.returning", bind=True, base=lane_task, ignore_result=True)
    def returning(self: Any, n: Any, delay: float) -> None:
        """Return to the lane once, and note when it is due."""
        if self.request.retries:
            event_log().write("again", n, self.request.hostname)
            return
        event_log().write("due", f"{n}:{time.time() + delay}", self.request.hostname)
        raise self.retry(countdown=delay)
