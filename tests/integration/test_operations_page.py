"""Every command of docs/operations.md is run as the page has it, by the user that the page gives to the broker."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from kit.client_rig import IN_TIME_S, Rig, params, the_dead, web_app
from kit.server import Server
from kit.waiting import wait_until
from kit.worker import worker
from redis import Redis

from celery_app.client import Client
from celery_app.errors import ApiError
from demo.ports import free_port
from demo.simulator import running
from tests.conftest import close

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning"),
]

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text()
COMMANDS = [
    line[2:].partition(" #")[0].strip()
    for block in re.findall(r"^```console\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
    if line.startswith("$ ")
]

#: Where commands are run that need what is not here: a package index, Prometheus, a shell's environment, a terminal.
ELSEWHERE = {
    "--watch": "tests/integration/test_status_command.py",
    "top": "tests/integration/test_top_command.py",
    "pip": "tests/unit/test_distribution.py",
    "prometheus": "tests/acceptance/test_prometheus.py",
    "curl": "tests/integration/test_ezai_command.py",
    "export": "tests/integration/test_ezai_command.py",
}

#: What goes on until it is stopped, and what it says once it does what it is for.
GOES_ON = {"flower": "Visit me", "exporter": "/metrics", "worker": " ready.", "simulator": "url"}

#: What a server keeps for administrators, and `lanes check` does without.
NOT_ALLOWED = "config|get"

#: Seconds that a command may take on a busy machine.
DEADLINE_S = 120.0


@pytest.fixture(scope="module")
def admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """A server whose users are those of the page, and its administrator's client."""
    with Server(tmp_path_factory.mktemp("server"), durable=False) as server:
        with server.client() as first:
            first.execute_command("ACL", "SETUSER", "admin", "on", ">root", "~*", "&*", "+@all")
        with Redis(port=server.port, username="admin", password="root") as client:  # noqa: S106 - a server of this test
            for command in COMMANDS:
                program, *words = shlex.split(command)
                if program == "redis-cli":
                    assert client.execute_command(*words) == b"OK", command
            yield client


@pytest.fixture(scope="module")
def up(admin: Redis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """A worker and a client of the page's user, jobs that went well, and a dead letter."""
    url = f"redis://celery:s3cret@127.0.0.1:{admin.connection_pool.connection_kwargs['port']}/0"
    app = web_app(url)
    with running() as api:
        env = {"CELERY_BROKER_URL": url, "EZAI_API_KEY": "sk-test", "EZAI_BASE_URL": api.url}
        options = ("-Q", "critical,normal,batch", "-c", "4")
        with worker(tmp_path_factory.mktemp("w"), *options, LANES_BATCH_ATTEMPTS="1", **env) as started:
            yield Rig(app, Client(app), api, started, env)
    close(app)


def use(up: Rig) -> str:
    """Do what clients do, and return the id of a dead letter."""
    for model in ("claude-haiku-4-5", "claude-opus-4-5"):
        assert up.client.ask(**{**params(), "model": model}).content
    assert list(up.client.stream(**params()))
    assert len(list(up.client.submit_many([params()] * 3, lane="batch").results())) == 3
    assert up.client.ask(**params("x" * 200_000)).content
    up.client.cancel(up.client.submit("batch", **params()))
    failing = up.client.submit("batch", **params(fault="500"))
    with pytest.raises(ApiError):
        failing.get(IN_TIME_S)
    (letter,) = the_dead(up)
    return str(letter.id)


def line_of(command: str, letter: str) -> list[str]:
    """Return a command's words, with a port that is free in place of the page's, and with a dead letter's id."""
    words = [word.replace("<id>", letter) for word in shlex.split(command)]
    port = str(free_port())
    words = [re.sub(r"--port=\d+", f"--port={port}", word) for word in words]
    if "--port" in words:
        words[words.index("--port") + 1] = port
    elif "exporter" in words:
        words += ["--port", port]
    elif "worker" in words:
        words += ["-l", "info"]  # it says that it is ready at that level alone
    return [sys.executable, *(["-m", "celery"] if words[0] == "celery" else []), *words[1:]]


def run_to_its_end(line: list[str], env: dict[str, str]) -> None:
    """Run a command that ends: it ends well, and says what is wrong with nothing."""
    done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=DEADLINE_S, check=False, cwd=ROOT)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), f"{line}: {done.stdout}{done.stderr}"


def run_until_it_works(line: list[str], says: str, env: dict[str, str], log: Path) -> None:
    """Run a command that goes on until it does what it is for, and stop it."""
    with log.open("wb") as output:
        process = subprocess.Popen(line, env=env, stdout=output, stderr=output, cwd=ROOT)
    try:
        wait_until(lambda: says in log.read_text() or process.poll() is not None, f"{line} says {says}", DEADLINE_S)
        assert process.poll() is None, f"{line}: {log.read_text()}"
        process.send_signal(signal.SIGTERM)
        process.wait(DEADLINE_S)
    finally:
        process.kill()
        process.wait()


def test_all_of_them(up: Rig, admin: Redis, tmp_path: Path) -> None:
    """One after the other, in the page's order; and nothing is denied to the page's user that it needs."""
    letter, env = use(up), {**os.environ, **up.env, "PYTHONUNBUFFERED": "1"}
    for number, command in enumerate(COMMANDS):
        if {*command.split()} & {*ELSEWHERE, "redis-cli"}:
            continue
        says = next((says for word, says in GOES_ON.items() if word in re.split(r"[ .]", command)), None)
        line = line_of(command, letter)
        if says is None:
            run_to_its_end(line, env)
        else:
            run_until_it_works(line, says, env, tmp_path / f"{number}.log")
    up.worker.stop()
    assert {denied["object"] for denied in log_of(admin)} <= {NOT_ALLOWED}
    with pytest.raises(Exception, match=r"[Nn]o permission"), Redis.from_url(up.env["CELERY_BROKER_URL"]) as client:
        client.set("of-somebody-else", time.time())


def log_of(admin: Redis) -> list[dict[str, Any]]:
    """Return what the server has denied."""
    entries: Any = admin.execute_command("ACL", "LOG")
    text = lambda value: value.decode() if isinstance(value, bytes) else value  # noqa: E731
    pairs = [
        entry.items() if isinstance(entry, dict) else zip(entry[::2], entry[1::2], strict=True) for entry in entries
    ]
    return [{text(name): text(value) for name, value in entry} for entry in pairs]


def test_what_is_run_elsewhere_is() -> None:
    """Each command that is left out here is one of the page's, and the file that runs it is there."""
    assert {*ELSEWHERE} <= {word for command in COMMANDS for word in command.split()}
    assert {command.split()[0] for command in COMMANDS} <= {*ELSEWHERE, "celery", "redis-cli", "python"}
    assert all((ROOT / path).exists() for path in ELSEWHERE.values())
