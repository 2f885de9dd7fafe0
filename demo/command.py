"""A command of the user's own that runs beside the workers: a web server, mostly."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from demo.errors import CommandNotFound
from demo.ports import LOCALHOST, free_port

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from demo.child import Child
    from demo.group import ProcessGroup

#: Seconds from start until it listens: 1 on a laptop, many on a loaded CI machine.
READY_SECONDS = 60.0
#: Seconds for one try to connect.
CONNECT_SECONDS = 0.5
#: Stands in the command for the port to listen on.
PORT = "{port}"


class Command:
    """The command, in the environment of the stack."""

    ready_seconds = READY_SECONDS

    def __init__(self, words: Sequence[str]) -> None:
        """Take a free port for a command that asks for one; nothing is started yet.

        Args:
            words: program and arguments, with ``{port}`` where it wants the number of its port.
        """
        self._port = free_port() if any(PORT in word for word in words) else None
        self._words = [word.replace(PORT, str(self._port)) for word in words]

    @property
    def title(self) -> str:
        """The program's name."""
        return self._words[0].rpartition("/")[2]

    @property
    def url(self) -> str | None:
        """Where it listens; None if it asked for no port."""
        return f"http://{LOCALHOST}:{self._port}" if self._port else None

    def start(self, group: ProcessGroup, environ: Mapping[str, str]) -> Child:
        """Start it where the whole stack was started, without a shell.

        Raises:
            CommandNotFound: there is no such program, or it must not be run.
        """
        try:
            return group.start(self.title, "command", self._words, environ)
        except OSError as error:
            raise CommandNotFound(command=self._words[0], reason=(error.strerror or str(error)).lower()) from None

    def is_ready(self) -> bool:
        """Whether it listens; a command without a port is ready once it runs."""
        if self._port is None:
            return True
        try:
            socket.create_connection((LOCALHOST, self._port), CONNECT_SECONDS).close()
        except OSError:
            return False
        return True
