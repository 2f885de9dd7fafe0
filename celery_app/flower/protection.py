"""Who may see Flower, where nobody has said: whoever has the password that it prints, on this machine."""

from __future__ import annotations

import logging
import os
import secrets
from pathlib import Path
from typing import Any

import click

#: The only address that strangers cannot reach.
LOOPBACK = "127.0.0.1"

#: The login's name where Flower is given none.
USER = "lanes"

#: Random bytes of its password.
_PASSWORD_BYTES = 16

_OPEN = (
    "Flower asks for no password: whoever reaches it may stop workers and read what it shows. Set basic_auth or auth "
    "in %s. The lanes' page changes nothing without a login."
)

_logger = logging.getLogger(__name__)


def protect(options: Any, *, has_only_lanes: bool) -> None:
    """Choose what nobody has said: a password, and the address that only this machine reaches.

    A `flowerconfig.py` is its owner's word on both. Without one, a login that was given (``--basic-auth``, ``--auth``
    or ``FLOWER_BASIC_AUTH``) or an ``FLOWER_UNAUTHENTICATED_API`` stays as it is, and a project's Flower, which had a
    login before there were lanes, stays at its address: in a container nobody would reach it any more.

    Args:
        options: Flower's, once they are read.
        has_only_lanes: whether the application is no project's own.
    """
    configured, asks = Path(options.conf).is_file(), has_login(options)
    if configured or is_open(options):
        if not asks:
            _logger.warning(_OPEN, options.conf)
        if configured:
            return
    elif not asks:
        _make_login(options)
    is_said = options.address or options.unix_socket
    if not is_said and (has_only_lanes or not asks):
        options.address = LOOPBACK
        click.echo(f"Flower: on {LOOPBACK} alone; --address=0.0.0.0 is for other machines, too", err=True)


def has_login(options: Any) -> bool:
    """Whether Flower asks who somebody is."""
    return bool(options.auth or any(options.basic_auth or ()))


def is_open(options: Any) -> bool:
    """Whether somebody has said that Flower is open to strangers, in Flower's own words for its API."""
    told = os.environ.get("FLOWER_UNAUTHENTICATED_API", "").lower()
    return told in {"1", "true", "yes", "on", "y", "t"} and not has_login(options)


def _make_login(options: Any) -> None:
    password = secrets.token_urlsafe(_PASSWORD_BYTES)
    options.basic_auth = [f"{USER}:{password}"]
    # Not by a logger: whoever collects logs has no need of it, and it lasts no longer than this process.
    click.echo(
        f"Flower: user {USER}, password {password}, until it is started anew; "
        "--basic-auth=<name>:<password> or FLOWER_BASIC_AUTH sets one",
        err=True,
    )
