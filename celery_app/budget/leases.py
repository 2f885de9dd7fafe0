"""The calls that a process makes, and the thread that says so to the budget."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

from celery_app.away import say_away

if TYPE_CHECKING:
    import redis

    from celery_app.budget.budget import Budget

#: Seconds between two renewals: one command for all calls of a process, and two may fail before a lease is over. The
#: scripts take Redis for away after two of these, see scripts/calls.lua.
RENEW_EVERY = 5.0

#: Seconds between two tries while Redis is away: its calls count as alive again as soon as possible.
RETRY_EVERY = 0.5


class CallLeases:
    """Keeps the leases of calls in flight alive; its thread sleeps while there are none."""

    def __init__(self) -> None:
        """Hold nothing yet; the thread starts with the first call."""
        self.forget()

    def forget(self) -> None:
        """Hold nothing, in a forked process: it has neither the calls nor the thread, and the lock may be taken."""
        self._held: dict[str, tuple[Budget, redis.Redis]] = {}
        self._lock = threading.Lock()
        self._busy = threading.Event()
        self._thread: threading.Thread | None = None

    def hold(self, budget: Budget, client: redis.Redis, ticket: str) -> None:
        """Renew a call's lease from now on."""
        with self._lock:
            self._held[ticket] = budget, client
            self._busy.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._keep_alive, name="lanes-calls", daemon=True)
                self._thread.start()

    def let_go(self, ticket: str) -> None:
        """Renew a call's lease no longer: it is settled, or about to be."""
        with self._lock:
            self._held.pop(ticket, None)
            if not self._held:
                self._busy.clear()

    def _keep_alive(self) -> None:
        renewed = True
        while True:
            self._busy.wait()
            time.sleep(RENEW_EVERY if renewed else RETRY_EVERY)
            try:
                self._renew()
                renewed = True
            except Exception as exc:  # noqa: BLE001 - whatever it was, nobody starts this thread again
                renewed = False
                say_away("the calls in flight cannot be renewed at the moment", exc)

    def _renew(self) -> None:
        groups: dict[tuple[Budget, redis.Redis], list[str]] = {}
        with self._lock:
            for ticket, drawn_on in self._held.items():
                groups.setdefault(drawn_on, []).append(ticket)
        for (budget, client), tickets in groups.items():
            budget.renew(client, tickets)


#: Those of this process.
CALL_LEASES = CallLeases()

os.register_at_fork(after_in_child=CALL_LEASES.forget)
