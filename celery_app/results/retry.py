"""How a worker's results outlive a result backend that is away, full, or refuses them for whatever reason."""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any

import redis
from celery.backends.base import BackendStoreError
from kombu.exceptions import EncodeError
from redis.exceptions import OutOfMemoryError

from celery_app.broker.verdict import hold_end
from celery_app.configuration.overriding import override
from celery_app.stopping.told import cold_shutdown, warm_shutdown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

logger = logging.getLogger(__name__)

#: Celery repeats what its backend calls safe to be repeated, without end, these milliseconds apart at most.
_REPEAT = {"result_backend_always_retry": True, "result_backend_max_sleep_between_retries_ms": 1_000}

#: What passes beside a connection that is lost: a server that is full, fails over, starts, saves or runs a script.
_FULL_OR_BUSY = (OutOfMemoryError, redis.ReadOnlyError, redis.BusyLoadingError)
_BUSY_WORDS = ("OOM", "MISCONF", "BUSY", "LOADING", "CLUSTERDOWN", "MASTERDOWN")

#: Seconds for which a worker that is to stop still tries to store what its calls have brought.
LAST_TRIES = 20.0

#: Seconds between two tries to store a result: the first, and the longest, at which a slot is soon free again.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0

#: Tries after which a result is to blame for its own failure, if others were stored meanwhile: about 20 s.
MOST_ALONE = 14

#: What writes a result, or a part of one: a chord's part that is not told holds up the whole chord.
_WRITES = ("store_result", "on_chord_part_return")


def keep_results(app: Any) -> None:
    """Have a worker's slots keep a result until it can be stored.

    Celery would raise, and the job would stay claimed and PENDING for as long as the worker lives, its slot with it; in
    a pool's process an answer that was paid for would be lost. Only slots wait: a worker's main thread claims jobs and
    hears signals, and a worker that stops requeues its jobs instead.
    """
    override(app, _REPEAT)
    retry = ResultRetry(lambda task_id: hold_end(app, task_id))
    app.lanes_result_retry = retry.on  # for the backends that a task brings along
    # The two places where each thread's backend is made.
    app._get_backend = _retrying(app._get_backend, retry)  # noqa: SLF001
    app.lanes_results.make = _retrying(app.lanes_results.make, retry)
    # One that was made before; a pool's process would inherit it.
    vars(app._local).pop("backend", None)  # noqa: SLF001
    app._backend_cache = None  # noqa: SLF001


def _retrying(make: Callable[..., Any], retry: ResultRetry) -> Callable[..., Any]:
    return lambda *args: retry.on(make(*args))


class ResultRetry:
    """Says whether the thread in hand may wait for the result backend, and waits."""

    def __init__(self, hold: Callable[[str], None]) -> None:
        """Know the worker's own process.

        Args:
            hold: keeps a job from being cancelled while its result waits, by its id.
        """
        self._pid = os.getpid()
        self._hold = hold
        self._stopping_since: float | None = None
        self._thread = threading.local()
        self._lock = threading.Lock()
        self._stored = 0
        self._away: set[str] = set()

    def on(self, backend: Any) -> Any:
        """Have a backend wait, and return it."""
        if "lanes_retried" in vars(backend):
            return backend
        backend.lanes_retried = True
        known = backend.exception_safe_to_retry
        # What is read: only what surely passes is tried again, since nothing is lost by an error.
        backend.exception_safe_to_retry = lambda exc: (
            not self._writes() and self.lasts() and (known(exc) or _passes(exc))
        )
        for name in _WRITES:
            if hasattr(backend, name):
                setattr(backend, name, self._until_done(getattr(backend, name)))
        return backend

    def lasts(self) -> bool:
        """Return whether it may go on waiting."""
        if os.getpid() != self._pid:
            return True  # a pool's process: it has nothing else to do, and is ended by a signal
        if threading.current_thread() is threading.main_thread():
            return False
        if cold_shutdown():
            return False
        if warm_shutdown() and self._stopping_since is None:
            self._stopping_since = time.monotonic()
        return self._stopping_since is None or time.monotonic() < self._stopping_since + LAST_TRIES

    def _writes(self) -> bool:
        return bool(getattr(self._thread, "writes", False))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        before, self._thread.writes = self._writes(), True
        try:
            yield
        finally:
            self._thread.writes = before

    def _until_done(self, write: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(write)
        def until_done(*args: Any, **kwargs: Any) -> Any:
            if self._writes():
                return write(*args, **kwargs)  # a part of another write, which is repeated as a whole
            with self._writing():
                task_id = args[0] if args and isinstance(args[0], str) else None
                return self._repeat(lambda: write(*args, **kwargs), task_id)

        return until_done

    def _repeat(self, write: Callable[[], Any], task_id: str | None) -> Any:
        """Write, whatever is raised; by default an answer is kept, since it was paid for."""
        pause, tries, stored_before = FIRST_PAUSE, 0, self._stored
        while True:
            try:
                done = write()
            except Exception as exc:
                tries += 1
                if _is_hopeless(exc) or not self.lasts():
                    raise
                if tries >= MOST_ALONE and self._stored != stored_before:
                    raise
                self._say_away(type(exc).__name__)
            else:
                self._say_back()
                return done
            if task_id is not None:
                self._hold(task_id)
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _say_away(self, kind: str) -> None:
        """Say so once for each kind of error; its words may repeat the result, as those of a database do."""
        with self._lock:
            known = kind in self._away
            self._away.add(kind)
        if not known:
            logger.warning(
                "results cannot be stored (%s): each is kept in its slot and tried again, every %.0f s at most, "
                "for as long as this worker runs",
                kind,
                LONGEST_PAUSE,
            )

    def _say_back(self) -> None:
        with self._lock:
            self._stored += 1
            was_away, self._away = bool(self._away), set()
        if was_away:
            logger.warning("results can be stored again")


def _is_hopeless(exc: Exception) -> bool:
    """Say whether no repetition changes it: the result itself cannot be written down, or is too large."""
    return isinstance(exc, EncodeError) or (isinstance(exc, BackendStoreError) and "too large" in str(exc))


def _passes(exc: Exception) -> bool:
    if isinstance(exc, (redis.ConnectionError, redis.TimeoutError, OSError, *_FULL_OR_BUSY)):
        return True
    return isinstance(exc, redis.ResponseError) and str(exc).startswith(_BUSY_WORDS)
