"""What the site relies on and that takes its time: a kill, and workers with options."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from processes_of_celery import JOB_DEADLINE, Process, process, stats, until

HERE = Path(__file__).parent


def test_a_job_that_was_begun_is_not_begun_again(flask_app: Any, folder: Path, tmp_path: Path) -> None:
    """The site acknowledges early, as Celery does unless told otherwise: a killed worker's job is gone."""
    from example import tasks

    app = flask_app.extensions["celery"]
    killed = Process("make_celery", "worker", "-n", "first@flask", "-c", "1", log=folder / "first.log", cwd=HERE)
    try:
        sent = tasks.process.apply_async((100,))
        until(lambda: sent.state == "PROGRESS", "begun")
    finally:
        killed.kill()
    arguments = ("worker", "-n", "second@flask", "-c", "1", "-l", "INFO")
    with process("make_celery", *arguments, log=folder / "second.log", cwd=HERE, ready="ready.") as second:
        # Longer than a lane's lease: a job under one would be back by now.
        time.sleep(25)
        assert tasks.add.delay(1, 1).get(JOB_DEADLINE) == 2
        assert "tasks.process" not in second.text.partition("ready.")[2]
        assert "prefork" in stats(app, "second@flask")["pool"]["implementation"]


def test_a_worker_with_options(flask_app: Any, folder: Path) -> None:
    """Autoscaling, limits and a queue of its own."""
    from example import tasks

    app = flask_app.extensions["celery"]
    options = ("-Q", "slow", "--autoscale=3,1", "--time-limit=30", "-l", "INFO", "-n", "slow@flask")
    with process("make_celery", "worker", *options, log=folder / "slow.log", cwd=HERE, ready="ready."):
        assert tasks.greet.apply_async(queue="slow").get(JOB_DEADLINE) == "hello from the context"
        told = stats(app, "slow@flask")
        assert told["autoscaler"]["max"] == 3
        assert list(told["pool"]["timeouts"]) == [0, 30.0]
