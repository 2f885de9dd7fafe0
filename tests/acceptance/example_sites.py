"""The example applications as a reader of theirs sees them, over real HTTP."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from celery_app import LANES, create_app
from celery_app.settings import Settings
from demo.ports import free_port
from tests.conftest import close

EXAMPLES = Path(__file__).parents[2] / "examples"
#: Seconds until a stack or a web process answers, on a loaded CI machine.
START_S = 90.0
#: Seconds that any other wait here may take.
IN_TIME_S = 30.0

WAITRESS = ["-m", "waitress", "--threads=32", "--listen=127.0.0.1:{port}"]
#: Name -> folder of the example, and what its make target runs.
SERVERS = {
    "django-wsgi": ("django_chat", [sys.executable, *WAITRESS, "proj.wsgi:application"]),
    "django-asgi": ("django_chat", [sys.executable, "-m", "uvicorn", "--port={port}", "proj.asgi:application"]),
    "flask": ("flask_chat", [sys.executable, *WAITRESS, "proj.web:app"]),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server answered."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass(slots=True)
class Site:
    """A running example, with a browser's cookies.

    Attributes:
        url: of its pages.
        told: what `lanes up --json` says; empty for a web process alone.
    """

    url: str
    told: dict[str, Any] = field(default_factory=dict)
    token: str = ""
    opener: Any = field(
        default_factory=lambda: urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
    )

    def open(self) -> None:
        """Read a page and remember its CSRF token, as the scripts do."""
        page = self.send("GET", "/").body.decode()
        found = re.search(r'name="csrf-token" content="(.*?)"', page)
        self.token = found.group(1) if found else ""

    def request(self, method: str, path: str, data: bytes | None = None, **headers: str) -> urllib.request.Request:
        """Return a request as the page's scripts send it."""
        sent = {"X-CSRFToken": self.token, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return urllib.request.Request(self.url + path, data, sent, method=method)  # noqa: S310 - our own URL

    def send(self, method: str, path: str, data: bytes | None = None, **headers: str) -> Answer:
        """Send a request; any status is an answer."""
        try:
            with self.opener.open(self.request(method, path, data, **headers), timeout=IN_TIME_S) as reply:
                return Answer(reply.status, reply.headers, reply.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.headers, error.read())

    def post(self, path: str, body: Any = None) -> Answer:
        """Send JSON."""
        return self.send("POST", path, json.dumps(body).encode(), Content_Type="application/json")

    def ask(self, text: str, lane: str = "critical") -> Answer:
        """Send a question of the chat page."""
        return self.post("/chat", {"lane": lane, "messages": [{"role": "user", "content": text}]})

    def upload(self, name: str, content: str, **fields: str) -> Answer:
        """Send the form of the batch page with a file."""
        mark = uuid.uuid4().hex
        parts = [f'name="{key}"\r\n\r\n{value}' for key, value in fields.items()]
        parts.append(f'name="file"; filename="{name}"\r\nContent-Type: text/plain\r\n\r\n{content}')
        body = "".join(f"--{mark}\r\nContent-Disposition: form-data; {part}\r\n" for part in parts) + f"--{mark}--\r\n"
        return self.send("POST", "/batches", body.encode(), Content_Type=f"multipart/form-data; boundary={mark}")

    def events(self, task_id: str, **headers: str) -> Iterator[tuple[str, dict[str, Any], float]]:
        """Read a stream as EventSource does: id, data and when it came."""
        with self.opener.open(self.request("GET", f"/chat/{task_id}", **headers), timeout=IN_TIME_S) as stream:
            event_id = ""
            for line in stream:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name == "id":
                    event_id = value
                elif name == "data":
                    yield event_id, json.loads(value), time.monotonic()

    def control(self, **changes: Any) -> None:
        """Change how the simulated API behaves."""
        data = json.dumps(changes).encode()
        request = urllib.request.Request(f"{self.told['base_url']}/_control", data, method="PATCH")  # noqa: S310
        urllib.request.urlopen(request, timeout=IN_TIME_S).close()  # noqa: S310

    def calls(self) -> list[dict[str, Any]]:
        """Return the simulated API's log."""
        with urllib.request.urlopen(f"{self.told['base_url']}/_calls", timeout=IN_TIME_S) as reply:  # noqa: S310
            calls: list[dict[str, Any]] = json.load(reply)["calls"]
            return calls

    def state_of(self, task_id: str) -> str:
        """Return a job's state, as the result backend has it."""
        keys = {lane.name: SecretStr("unused") for lane in LANES}
        broker = self.told["broker_url"]
        app = create_app(Settings(broker_url=broker, result_backend=broker, api_keys=keys))
        try:
            return str(app.AsyncResult(task_id).state)
        finally:
            close(app)


def clean_environ(**more: str) -> dict[str, str]:
    """Return the environment of somebody who has configured nothing."""
    ours = ("CELERY_", "EZAI_", "LANES_", "DJANGO_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | more


@contextmanager
def whole_site(name: str, folder: Path, *options: str) -> Iterator[Site]:
    """Run an example with all that it needs, as its make target does."""
    example, server = SERVERS[name]
    command = [sys.executable, "-m", "celery", "-A", "proj", "lanes", "up", "--no-flower", "--json", *options, "--"]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [*command, *server], env=clean_environ(TMPDIR=str(folder)), cwd=EXAMPLES / example, stdout=pipe, text=True
    ) as process:
        try:
            assert process.stdout is not None
            told = json.loads(process.stdout.readline())
            site = Site(told["command"]["url"], told)
            site.open()
            yield site
        finally:
            process.terminate()
            process.wait(IN_TIME_S)


@contextmanager
def web_process(name: str, folder: Path, **environ: str) -> Iterator[Site]:
    """Run an example's web process alone."""
    example, server = SERVERS[name]
    port = str(free_port())
    command = [word.replace("{port}", port) for word in server]
    with (folder / f"web-{port}.log").open("wb") as log:
        process = subprocess.Popen(
            command, env=clean_environ(**environ), cwd=EXAMPLES / example, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        site = Site(f"http://127.0.0.1:{port}")
        deadline = time.monotonic() + START_S
        while True:
            try:
                site.open()
                break
            except OSError:
                assert process.poll() is None, (folder / f"web-{port}.log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield site
    finally:
        process.kill()
        process.wait(IN_TIME_S)
