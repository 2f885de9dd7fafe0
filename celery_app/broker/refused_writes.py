"""A server that refuses to write, out of memory or disk full: a worker waits for it to recover, and does not end."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import redis

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

#: Seconds between two tries.
REFUSED_PAUSE = 0.5


def wait_for_server(what: str, exc: Exception) -> None:
    """Say what the server refuses, and give it time."""
    logger.warning("the broker refuses %s: %s", what, exc)
    time.sleep(REFUSED_PAUSE)


@contextmanager
def coming_back() -> Iterator[None]:
    """Have the worker connect anew after a write that the server refuses, for whatever reason: it would end else."""
    try:
        yield
    except redis.ResponseError as exc:
        wait_for_server("what a worker writes at its start", exc)
        raise redis.ConnectionError(str(exc)) from exc


@contextmanager
def full_disk_is_away() -> Iterator[None]:
    """Take a server for one that is away which answers a PING, too, by saying that its disk is full."""
    try:
        yield
    except redis.ResponseError as exc:
        if not str(exc).startswith("MISCONF"):
            raise
        raise redis.ConnectionError(str(exc)) from exc
