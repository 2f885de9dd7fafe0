"""Flower's page of queues, as whoever looks at it sees it."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
import urllib.request
from typing import TYPE_CHECKING, Any

from client_rig import params
from worker_process import worker

from demo.ports import free_port
from tasks import create_message

if TYPE_CHECKING:
    from pathlib import Path

IN_TIME_S = 60.0


def lengths(port: int) -> dict[str, int]:
    """Return what Flower says of the queues; nothing while it does not answer."""
    login = base64.b64encode(b"ada:secret").decode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/queues/length", headers={"Authorization": f"Basic {login}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - ours
            return {each["name"]: each["messages"] for each in json.load(answer)["active_queues"]}
    except OSError:
        return {}


def test_flower_counts_what_is_in_lines_and_what_waits_for_its_time(
    lanes_app: Any, broker_url: str, tmp_path: Path
) -> None:
    """A lane's jobs are in no list, and Flower counts them all the same."""
    port, env = free_port(), {**os.environ, "CELERY_BROKER_URL": broker_url, "EZAI_API_KEY": "unused"}
    for _ in range(3):
        lanes_app.tasks[create_message.name].apply_async(kwargs=params(), queue="batch", countdown=600)
    command = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "celery_app",
        "flower",
        f"--port={port}",
        "--basic-auth=ada:secret",
    ]
    with (
        worker(tmp_path, "-Q", "batch", CELERY_BROKER_URL=broker_url, EZAI_API_KEY="unused"),
        (tmp_path / "flower.log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log, env=env, cwd=tmp_path) as flower,
    ):
        try:
            deadline = time.monotonic() + IN_TIME_S
            while lengths(port).get("batch") != 3:
                assert time.monotonic() < deadline, lengths(port)
                time.sleep(0.2)
        finally:
            flower.kill()
