"""What the site relies on; passes on stock Celery, and unchanged with the lanes installed."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from celery.result import AsyncResult
from processes_of_celery import JOB_DEADLINE, Process, until

HERE = Path(__file__).parent


def test_a_view_starts_a_job_and_another_tells_its_result(flask_app: Any, worker: Process) -> None:
    """The documented round trip."""
    client = flask_app.test_client()
    sent = client.post("/tasks/add", data={"a": 2, "b": 3}).get_json()["result_id"]
    until(lambda: client.get(f"/tasks/result/{sent}").get_json()["ready"], "ready")
    assert client.get(f"/tasks/result/{sent}").get_json() == {"ready": True, "successful": True, "value": 5}


def test_progress_is_seen(flask_app: Any, worker: Process) -> None:
    """`update_state` reaches the view."""
    client = flask_app.test_client()
    sent = client.post("/tasks/process", data={"total": 4}).get_json()["result_id"]

    def told() -> Any:
        return client.get(f"/tasks/result/{sent}").get_json()

    until(lambda: (told()["value"] or {}).get("total") == 4 and not told()["ready"], "progress")
    until(lambda: told()["ready"], "the end")


def test_tasks_have_the_applications_context(flask_app: Any, worker: Process) -> None:
    """`FlaskTask` wraps each call, also the one after a retry."""
    from example import tasks

    assert tasks.greet.delay().get(JOB_DEADLINE) == "hello from the context"
    assert tasks.greet_later.delay().get(JOB_DEADLINE) == "hello from the context"


def test_results_are_ignored_unless_asked_for(flask_app: Any, worker: Process, tmp_path: Path) -> None:
    """`task_ignore_result` is the site's default, and a task's own word wins."""
    from example import tasks

    sent = tasks.block.delay(str(tmp_path / "done"))
    until((tmp_path / "done").exists, "the job")
    assert tasks.add.delay(1, 1).get(JOB_DEADLINE) == 2
    assert sent.state == "PENDING"
    assert flask_app.extensions["celery"].conf.task_ignore_result is True


def test_any_thread_of_the_web_server(flask_app: Any, worker: Process) -> None:
    """Threads send shared tasks to the application that was made last, and find the results."""
    from example import tasks

    found: list[Any] = []

    def view() -> None:
        found.append(AsyncResult(tasks.add.delay(20, 1).id).get(JOB_DEADLINE))

    threads = [threading.Thread(target=view) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(JOB_DEADLINE)
    assert found == [21] * 10


def test_two_applications_of_one_process(worker: Process) -> None:
    """The factory is called again, as every test of the site does; each has its own Celery application."""
    from example import create_app

    one, two = create_app(), create_app()
    assert one.extensions["celery"] is not two.extensions["celery"]
    two.extensions["celery"].conf.task_always_eager = True
    assert two.extensions["celery"].tasks["example.tasks.add"].delay(1, 2).get(JOB_DEADLINE) == 3
    assert one.extensions["celery"].tasks["example.tasks.add"].delay(1, 2).get(JOB_DEADLINE) == 3
