"""Ports of 127.0.0.1."""

from __future__ import annotations

import socket

from demo.errors import PortTaken

LOCALHOST = "127.0.0.1"


def free_port() -> int:
    """Return a port that was free a moment ago; who needs it has to be ready to ask again."""
    with socket.create_server((LOCALHOST, 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def check_port(port: int, what: str, option: str) -> None:
    """Raise `PortTaken` if nobody could listen on a port; `what` wants it, `option` can change it."""
    try:
        socket.create_server((LOCALHOST, port)).close()
    except OSError as error:
        reason = (error.strerror or str(error)).split(" (while")[0]
        raise PortTaken(port=port, what=what, option=option, reason=reason.lower()) from None
