"""The documented views."""

from __future__ import annotations

from celery.result import AsyncResult
from flask import Blueprint, request

from example import tasks

bp = Blueprint("tasks", __name__, url_prefix="/tasks")


@bp.get("/result/<id>")
def result(id: str) -> dict[str, object]:  # noqa: A002 - the documentation's name
    """Say how a job is getting on."""
    result = AsyncResult(id)
    ready = result.ready()
    return {
        "ready": ready,
        "successful": result.successful() if ready else None,
        "value": result.get() if ready else result.result,
    }


@bp.post("/add")
def add() -> dict[str, object]:
    """Start a job."""
    a = request.form.get("a", type=int)
    b = request.form.get("b", type=int)
    result = tasks.add.delay(a, b)
    return {"result_id": result.id}


@bp.post("/process")
def process() -> dict[str, object]:
    """Start a long one."""
    result = tasks.process.delay(total=request.form.get("total", type=int))
    return {"result_id": result.id}
