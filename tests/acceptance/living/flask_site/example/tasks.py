"""The site's tasks; shared, since there is no application to import."""

from __future__ import annotations

import time
from pathlib import Path

from celery import Task, shared_task
from flask import current_app, has_app_context


@shared_task(ignore_result=False)
def add(a: int, b: int) -> int:
    """Add, and keep the sum."""
    return a + b


@shared_task()
def block(path: str) -> None:
    """Do something whose result nobody keeps."""
    time.sleep(0.1)
    Path(path).write_text("done")


@shared_task(bind=True, ignore_result=False)
def process(self: Task, total: int) -> object:  # type: ignore[type-arg]
    """Tell about its progress."""
    for i in range(total):
        self.update_state(state="PROGRESS", meta={"current": i + 1, "total": total})
        time.sleep(0.2)
    return {"current": total, "total": total}


@shared_task(ignore_result=False)
def greet() -> str:
    """Need the application's context."""
    assert has_app_context()
    return str(current_app.config["GREETING"])


@shared_task(bind=True, ignore_result=False, max_retries=2)
def greet_later(self: Task) -> str:  # type: ignore[type-arg]
    """Need it after a retry, too."""
    if self.request.retries < 2:
        raise self.retry(countdown=0.05)
    return str(current_app.config["GREETING"])
