"""Recording begins where a worker begins: a web process never gets here."""

from __future__ import annotations

import atexit
from typing import Any

from celery import signals

from celery_app.metrics.events import subscribe


def record_in_workers() -> None:
    """Have every worker of this process that serves lanes write its metrics to the broker."""
    signals.worker_init.connect(_on_worker_init, dispatch_uid="celery_app.metrics")


def _on_worker_init(sender: Any, **_: Any) -> None:
    from celery_app.settings import has_lanes  # pydantic is not wanted before the first use

    if not has_lanes(sender.app):
        return
    from celery_app.metrics.recorder import Recorder

    recorder = Recorder(sender.app)
    subscribe(recorder)
    # A prefork child inherits the subscription, and leaves without its exit handlers. A job that ends while the worker
    # shuts down is written by the one that comes last.
    signals.worker_process_shutdown.connect(recorder.flush_all, weak=False)
    signals.worker_shutdown.connect(recorder.flush_all, weak=False)
    atexit.register(recorder.flush_all)
