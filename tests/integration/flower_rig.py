"""Flower as an operator starts it: a process of its own, its log in a file, and its pages over HTTP."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kit.waiting import wait_until

from demo.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

IN_TIME_S = 60.0
LOGIN = "ada:s3cret"


@dataclass(frozen=True, slots=True)
class Answer:
    """What an HTTP server has answered."""

    status: int
    text: str
    headers: Mapping[str, str]

    @property
    def json(self) -> Any:
        """Read it."""
        return json.loads(self.text)


@dataclass(frozen=True, slots=True)
class Flower:
    """A running Flower."""

    port: int
    log: Path

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def said(self) -> str:
        """Return what it has printed."""
        return self.log.read_text(errors="replace")

    def ask(self, path: str, login: str | None = LOGIN, data: Any = None, **headers: str) -> Answer:
        """Ask for a page; `data` is posted as JSON. Each header's name has _ for -."""
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        if login:
            told["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
        body = None
        if data is not None:
            body, told = json.dumps(data).encode(), {"Content-Type": "application/json", **told}
        request = urllib.request.Request(self.url + path, body, told)  # noqa: S310 - ours
        try:
            with urllib.request.urlopen(request, timeout=IN_TIME_S) as answer:  # noqa: S310
                return Answer(answer.status, answer.read().decode(), answer.headers)
        except urllib.error.HTTPError as exc:
            with exc:
                return Answer(exc.code, exc.read().decode(), exc.headers)

    def is_up(self) -> bool:
        """Whether it answers."""
        try:
            return self.ask("/healthcheck", login=None).status in {200, 404}  # 404: it has a prefix
        except OSError:
            return False

    def lane(self, name: str) -> dict[str, Any]:
        """Return what the page knows of a lane."""
        found: dict[str, Any] = self.ask("/lanes/data").json["shown"]["lanes"][name]
        return found


@contextmanager
def flower(
    folder: Path, *options: str, app: str = "celery_app", login: str | None = LOGIN, **env: str
) -> Iterator[Flower]:
    """Run ``celery -A app flower`` with these options and variables until the block ends."""
    port, log = free_port(), folder / f"flower-{time.monotonic_ns()}.log"
    logins = [f"--basic-auth={login}"] if login else []
    command = [sys.executable, "-m", "celery", "-A", app, "flower", f"--port={port}", *logins, *options]
    ours = ("EZAI_", "LANES_", "CELERY_", "FLOWER_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    env = {**inherited, "PYTHONUNBUFFERED": "1", **env}
    with (
        log.open("wb") as output,
        subprocess.Popen(command, cwd=folder, env=env, stdout=output, stderr=output) as process,
    ):
        running = Flower(port, log)
        try:
            wait_until(lambda: running.is_up() or process.poll() is not None, "Flower answers", IN_TIME_S)
            assert process.poll() is None, running.said()
            yield running
        finally:
            process.kill()  # its handler of SIGTERM raises, and may do so where Python ignores it
