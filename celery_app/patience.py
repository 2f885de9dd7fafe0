"""How a worker's results outlive a result backend that is away or full."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any

import redis
from redis.exceptions import OutOfMemoryError

from celery_app.overriding import override
from celery_app.stopping import told_to_end, told_to_finish

if TYPE_CHECKING:
    from collections.abc import Callable

#: Celery repeats what its backend calls safe to be repeated, without end, these milliseconds apart at most.
_REPEAT = {"result_backend_always_retry": True, "result_backend_max_sleep_between_retries_ms": 1_000}

#: What passes beside a connection that is lost: a server that is full, fails over, starts, saves or runs a script.
_FULL_OR_BUSY = (OutOfMemoryError, redis.ReadOnlyError, redis.BusyLoadingError)
_BUSY_WORDS = ("OOM", "MISCONF", "BUSY", "LOADING", "CLUSTERDOWN", "MASTERDOWN")

#: Seconds for which a worker that is to stop still tries to store what its calls have brought.
LAST_TRIES = 20.0


def keep_results(app: Any) -> None:
    """Have a worker's slots keep a result until it can be stored.

    Celery would raise, and the job would stay claimed and PENDING for as long as the worker lives. Only slots wait: a
    worker's main thread claims jobs and hears signals, and a worker that stops gives its jobs back instead.
    """
    override(app, _REPEAT)
    patience = Patience()
    # The two places where each thread's backend is made.
    app._get_backend = _patient(app._get_backend, patience)  # noqa: SLF001
    app.lanes_results.make = _patient(app.lanes_results.make, patience)
    # One that was made before; a pool's process would inherit it.
    vars(app._local).pop("backend", None)  # noqa: SLF001
    app._backend_cache = None  # noqa: SLF001


def _patient(make: Callable[..., Any], patience: Patience) -> Callable[..., Any]:
    def make_patient(*args: Any) -> Any:
        backend = make(*args)
        known = backend.exception_safe_to_retry
        backend.exception_safe_to_retry = lambda exc: patience.lasts() and (known(exc) or _passes(exc))
        return backend

    return make_patient


class Patience:
    """Says whether the thread in hand may wait for the result backend."""

    def __init__(self) -> None:
        """Know the worker's own process."""
        self._pid = os.getpid()
        self._stopping_since: float | None = None

    def lasts(self) -> bool:
        """Return whether it may go on waiting."""
        if os.getpid() != self._pid:
            return True  # a pool's process: it has nothing else to do, and is ended by a signal
        if threading.current_thread() is threading.main_thread():
            return False
        if told_to_end():
            return False
        if told_to_finish() and self._stopping_since is None:
            self._stopping_since = time.monotonic()
        return self._stopping_since is None or time.monotonic() < self._stopping_since + LAST_TRIES


def _passes(exc: Exception) -> bool:
    if isinstance(exc, (redis.ConnectionError, redis.TimeoutError, OSError, *_FULL_OR_BUSY)):
        return True
    return isinstance(exc, redis.ResponseError) and str(exc).startswith(_BUSY_WORDS)
