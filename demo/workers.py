"""The stack's two workers: one that only critical may use, and one for all lanes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from celery.utils.nodenames import host_format

from celery_app.lanes import CRITICAL, LANES, Lane

if TYPE_CHECKING:
    from collections.abc import Mapping

    from demo.child import Child
    from demo.group import ProcessGroup

#: Seconds from start to the first answer: 3 on a laptop, many on a loaded CI machine.
READY_SECONDS = 60.0
#: Seconds that one question "are you there?" waits for answers; an idle worker needs a tenth.
PING_SECONDS = 0.5


class Worker:
    """A Celery worker of the stack."""

    ready_seconds = READY_SECONDS

    def __init__(self, app: Any, name: str, lanes: tuple[Lane, ...], slots: int, runs: str) -> None:
        """Describe it; nothing is started yet.

        Args:
            app: with which to ask the worker whether it is there.
            name: what stands before the ``@`` in its node name.
            lanes: that it serves.
            slots: jobs that it runs at the same time.
            runs: the application that it runs, as after ``-A``.
        """
        self.node = host_format(f"{name}@%h")
        self.queues = tuple(lane.name for lane in lanes)
        self.slots = slots
        self._app, self._name, self._runs = app, name, runs

    @property
    def title(self) -> str:
        """As in "worker critical, 4 slots"."""
        return f"worker {self._name}, {self.slots} slots"

    def start(self, group: ProcessGroup, environ: Mapping[str, str]) -> Child:
        """Start it with the command that one would type."""
        options = ["-Q", ",".join(self.queues), "-n", self.node, "-c", str(self.slots), "-l", "INFO"]
        command = [sys.executable, "-m", "celery", "-A", self._runs, "worker", *options]
        return group.start(f"The worker {self.node}", f"worker-{self._name}", command, environ)

    def is_ready(self) -> bool:
        """Whether it answers within half a second; it does from the moment that it takes jobs."""
        return bool(self._app.control.ping(destination=[self.node], timeout=PING_SECONDS))


def two_workers(app: Any, critical_slots: int, shared_slots: int, runs: str) -> tuple[Worker, Worker]:
    """Return the worker that only critical may use, and the one that all lanes share."""
    critical = Worker(app, "critical", (CRITICAL,), critical_slots, runs)
    return critical, Worker(app, "shared", LANES, shared_slots, runs)
