"""Stack: broker, API, workers, Flower and a command on one machine, gone again when it ends."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from celery.utils.nodenames import host_format

from celery_app.app import create_app
from celery_app.connections.addresses import DEFAULT_BROKER_URL
from celery_app.connections.redis_client import broker_errors, redis_client
from celery_app.lanes import CRITICAL, LANES
from demo import parts
from demo.errors import NotReady, Unusable
from demo.processes import Child, Interrupts, ProcessGroup, stop
from demo.simulator import ApiLimits, Behaviour, RunningServer, running

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from celery_app.settings import Settings
    from demo.parts import Part

#: Seconds from start until a part works: 3 on a laptop, many on a loaded CI machine.
READY_SECONDS = 60.0
#: Seconds for the workers to finish the calls in hand, a longer call is given up; and for what has nothing to finish.
WORKER_GRACE, GRACE = 5.0, 1.5
#: Seconds between two looks at whatever is waited for.
TICK = 0.05
#: What the workers present to the simulated API, which takes any key.
SIMULATED_KEY = "simulated"
FLOWER_USER = "lanes"


class Stack:
    """The running stack, as a context manager; where a part fails, all are stopped before the error is raised.

    Attributes:
        settings: those given, with the stack's own broker and API in them once they run.
        app: a Celery application for them, to submit with.
        workers: node name -> its queues and slots.
        children: name of the log -> the process, in the order of their start.
    """

    simulator: RunningServer | None = None
    command: Part | None = None

    def __init__(
        self,
        settings: Settings,
        interrupts: Interrupts,
        console: Console,
        *,
        slots: tuple[int, int],
        flower_port: int | None,
        behaviour: Mapping[str, Any],
        runs: str = "celery_app",
        command: Sequence[str] = (),
    ) -> None:
        """Look at what was set, so that what is wrong is said before anything is started.

        Args:
            settings: without a key in them the API is a simulated one, with their limits.
            interrupts: are looked at while it waits.
            console: shows for what.
            slots: concurrent jobs of the worker that only critical may use, and of the worker for all lanes.
            flower_port: 0 takes a free one; None leaves Flower out.
            behaviour: of the simulated API, as fields of its `Behaviour`.
            runs: the Celery application that the workers run, as after ``-A``.
            command: of the user's own beside them, with ``{port}`` for a free port.
        """
        settings.check_broker()
        self.settings, self._interrupts, self._console = settings, interrupts, console
        self._behaviour, self._runs, self._command = behaviour, runs, command
        is_named = settings.has_own_broker or settings.broker_url != DEFAULT_BROKER_URL
        self._valkey = None if is_named else parts.valkey_binary()
        self.simulated = not any(map(settings.api_key, settings.lanes))
        self.flower = None if flower_port is None else parts.flower(flower_port)
        self.children: dict[str, Child] = {}
        queues = {"critical": [CRITICAL.name], "shared": [lane.name for lane in LANES]}
        self.workers: dict[str, dict[str, Any]] = {
            host_format(f"{name}@%h"): {"queues": queues[name], "slots": number}
            for name, number in zip(queues, slots, strict=True)
        }

    @property
    def environ(self) -> dict[str, str]:
        """What an application beside the stack needs in its environment, besides what is there already."""
        broker = {"CELERY_BROKER_URL": self.settings.broker_url} if self._valkey else {}
        return broker | ({"EZAI_BASE_URL": self.settings.base_url} if self.simulated else {})

    def __enter__(self) -> Self:
        """Start everything, and return when everything is ready."""
        self.group, self._exits = ProcessGroup(), ExitStack()
        try:
            self._start_all()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop everything, workers first."""
        self._interrupts.ending = True
        workers = [child for name, child in self.children.items() if name.startswith("worker-")]
        others = [child for child in reversed(self.children.values()) if child not in workers]
        with self._console.status("stopping (Ctrl-C hurries it)"):
            stop(workers, WORKER_GRACE, lambda: self._interrupts.hurried)
            for child in others:
                stop([child], GRACE, lambda: self._interrupts.hurried)
            self._exits.close()
            self.group.close()

    def check(self) -> None:
        """Raise KeyboardInterrupt where somebody wants it to end, `ChildEnded` where a process is gone."""
        self._interrupts.check()
        for child in (*self.children.values(), self.group.guard):
            child.check()

    def _start_all(self) -> None:
        if self._valkey:
            broker = parts.valkey(self._valkey, self.group.directory)
            self._start(broker)
            self.settings = replace(self.settings, broker_url=str(broker.url))
        # Whatever backend the project has, this application needs one that it can be sure of.
        self.app: Any = create_app(replace(self.settings, result_backend=self.settings.broker_url))
        if not self._valkey:
            self._check_foreign_broker()
        if self.simulated:
            limits = {
                pattern: ApiLimits(rpm=each.rpm, itpm=each.itpm, otpm=each.otpm, in_flight=each.concurrency)
                for pattern, each in {**self.settings.model_limits, "*": self.settings.limits}.items()
            }
            self.simulator = self._exits.enter_context(running(Behaviour(**self._behaviour), limits=limits))
            self.settings = replace(self.settings, base_url=self.simulator.url)
        self._start(*(parts.worker(self.app, node, runs=self._runs, **each) for node, each in self.workers.items()))
        if self.flower:
            # After the workers: it asks at its start which there are.
            self._start(self.flower)
        if self._command:
            # Last, with a port that was free a moment ago.
            self.command = parts.command_of(self._command)
            self._start(self.command)

    def _check_foreign_broker(self) -> None:
        with self._console.status("broker (CELERY_BROKER_URL)"), broker_errors(self.app):
            redis_client(self.app).ping()
            for node in self.workers:
                if parts.answers(self.app, node):
                    taken = f"A worker named {node} answers on this broker already; another stack is running"
                    raise Unusable(problem=taken)

    def _start(self, *started: Part) -> None:
        """Start parts together, and wait for each."""
        key = {"EZAI_API_KEY": SIMULATED_KEY} if self.simulated else {}
        # Unbuffered, so that the end of a log is there when its writer has died. Flower runs an application of ours,
        # which does not know the project's configuration.
        broker = {"CELERY_BROKER_URL": self.settings.broker_url, "PYTHONUNBUFFERED": "1"}
        environ = {**os.environ, **broker, **self.environ, **key}
        for part in started:
            if part is self.flower:
                # None of the user's own; the password is where only this user can read it.
                environ = {name: value for name, value in environ.items() if not name.startswith("FLOWER_")}
                environ["FLOWER_BASIC_AUTH"] = f"{FLOWER_USER}:{part.password}"
            self.children[part.log] = self.group.start(part.title, part.log, part.command, environ)
        deadline = time.monotonic() + READY_SECONDS
        for part in started:
            with self._console.status(part.title):
                while not part.is_ready():
                    self.check()
                    if time.monotonic() > deadline:
                        raise NotReady(name=part.title, seconds=READY_SECONDS, log=self.children[part.log].tail())
                    time.sleep(TICK)
                # What answers might be a stranger on the same port.
                self.check()
