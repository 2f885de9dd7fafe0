"""Recording begins where a worker begins: a web process never gets here."""

from __future__ import annotations

import atexit
from typing import Any

from celery import signals

from celery_app.metrics.events import subscribe
from celery_app.metrics.recorder import Recorder


def record(app: Any) -> None:
    """Have this process, a worker that serves lanes, write its metrics to the broker."""
    recorder = Recorder(app)
    subscribe(recorder)
    # A prefork child inherits the subscription, and leaves without its exit handlers. A job that ends while the worker
    # shuts down is written by the one that comes last.
    signals.worker_process_shutdown.connect(recorder.flush_all, weak=False)
    signals.worker_shutdown.connect(recorder.flush_all, weak=False)
    atexit.register(recorder.flush_all)
