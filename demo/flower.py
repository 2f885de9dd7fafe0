"""Flower with a password, on 127.0.0.1."""

from __future__ import annotations

import secrets
import sys
import urllib.request
from importlib.util import find_spec
from typing import TYPE_CHECKING

from demo.errors import PackageMissing
from demo.ports import LOCALHOST, check_port, free_port

if TYPE_CHECKING:
    from collections.abc import Mapping

    from demo.child import Child
    from demo.group import ProcessGroup

DEFAULT_PORT = 5555
#: Seconds from start to the first page: 2 on a laptop, many on a loaded CI machine.
READY_SECONDS = 60.0
#: Seconds for one request to it.
REQUEST_SECONDS = 1.0
#: Bytes of randomness in the password.
PASSWORD_BYTES = 12

USER = "lanes"


class Flower:
    """Flower, and what one needs to log in."""

    title = "Flower"
    ready_seconds = READY_SECONDS

    def __init__(self, port: int) -> None:
        """Check that it can run; nothing is started yet.

        Args:
            port: to listen on; 0 takes a free one.

        Raises:
            PackageMissing: Flower is not installed.
            PortTaken: somebody else listens on the port.
        """
        if find_spec("flower") is None:
            raise PackageMissing(package="flower", extra="flower", otherwise="leave it out with --no-flower")
        if port:
            check_port(port, "Flower", "--flower-port")
        self.port = port or free_port()
        self.password = secrets.token_urlsafe(PASSWORD_BYTES)

    @property
    def url(self) -> str:
        """Where its pages are."""
        return f"http://{LOCALHOST}:{self.port}"

    def start(self, group: ProcessGroup, environ: Mapping[str, str]) -> Child:
        """Start it; the password travels in the environment, which only this user can read."""
        # Without --conf it would run a flowerconfig.py that happens to lie in the current directory.
        options = [f"--address={LOCALHOST}", f"--port={self.port}", "--conf=/dev/null"]
        command = [sys.executable, "-m", "celery", "-A", "celery_app", "flower", *options]
        own = {name: value for name, value in environ.items() if not name.startswith("FLOWER_")}
        login = f"{USER}:{self.password}"
        return group.start("Flower", "flower", command, {**own, "FLOWER_BASIC_AUTH": login})

    def is_ready(self) -> bool:
        """Whether its pages are there."""
        try:
            with urllib.request.urlopen(f"{self.url}/healthcheck", timeout=REQUEST_SECONDS):  # noqa: S310 - our own URL
                return True
        except OSError:  # URLError is one
            return False
