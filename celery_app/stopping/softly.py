"""Celery's soft shutdown, waited for in a thread of its own.

Celery's handler of SIGQUIT and of a second Ctrl-C waits in the main thread, wherever the signal has met it. If that was
within a line of the log, no slot gets past its own next line: its job is done, and not acknowledged before the wait is
over. Here the handler returns, and the signal is sent once more after the wait.
"""

from __future__ import annotations

import os
import signal
import time
from _thread import start_new_thread
from typing import TYPE_CHECKING, Any

from celery.worker import state

from celery_app.stopping import told

if TYPE_CHECKING:
    from collections.abc import Callable

#: Signals that may have Celery's handler of a cold shutdown, and the name that Celery gives it.
_SIGNALS, _COLD = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM), "worker_Cold"

#: Seconds between two looks whether there is anything to wait for.
_LOOK_EVERY = 0.05


class SoftShutdown:
    """Puts the wait of one worker before its cold shutdown; all but the wait itself is in signal handlers."""

    def __init__(self, worker: Any, begun: Callable[[], object]) -> None:
        """Wait for nothing yet; `begun` is called in a signal handler when that begins."""
        self._worker, self._begun = worker, begun
        self._waiting = self._over = False

    def hear(self) -> None:
        """Come before each handler of a cold shutdown that there is now; in the main thread only."""
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            if callable(handler) and getattr(handler, "__name__", "") == _COLD:
                signal.signal(number, self._before(handler))

    def _before(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        def first_softly(number: int, *frame: Any) -> None:
            if self._over or self._waiting or not self._worker.app.conf.worker_soft_shutdown_timeout:
                self._over = True
                handler(number, *frame)
                return
            self._waiting = True
            told.wait_softly()
            self._begun()
            start_new_thread(self._wait, (number,))  # takes no lock, as a Thread would

        return first_softly

    def _wait(self, number: int) -> None:
        conf = self._worker.app.conf
        give_up_at = time.monotonic() + conf.worker_soft_shutdown_timeout
        while not self._over and self._has_to_wait(conf) and time.monotonic() < give_up_at:
            time.sleep(_LOOK_EVERY)
        if not self._over:  # else somebody has sent it a second time
            os.kill(os.getpid(), number)

    def _has_to_wait(self, conf: Any) -> bool:
        return bool(state.active_requests or conf.worker_enable_soft_shutdown_on_idle)
