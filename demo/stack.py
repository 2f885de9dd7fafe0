"""Stack: broker, API, workers, Flower and a command on one machine, gone again when it ends."""

from __future__ import annotations

import dataclasses
import os
import time
from typing import TYPE_CHECKING, Any, Self

from celery_app.addresses import DEFAULT_BROKER_URL
from celery_app.app import create_app
from celery_app.connection import broker_errors, redis_client
from demo import api
from demo.child import Child, stop
from demo.command import Command
from demo.errors import NotReady, WorkerNameTaken
from demo.flower import Flower
from demo.group import ProcessGroup
from demo.valkey import Valkey
from demo.workers import two_workers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from celery_app.settings import Settings
    from demo.interrupts import Interrupts
    from demo.parts import Part
    from demo.steps import Steps

#: Seconds for the workers to finish the calls in hand; a longer call is given up.
WORKER_GRACE = 5.0
#: Seconds for any other part: it has nothing to finish.
GRACE = 1.5
#: Seconds between two looks at whatever is waited for.
TICK = 0.05


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What a stack is to be.

    Attributes:
        critical_slots: concurrent jobs of the worker that only critical may use.
        shared_slots: concurrent jobs of the worker for all lanes.
        flower_port: 0 takes a free one; None leaves Flower out.
        behaviour: of the simulated API, as fields of its `Behaviour`.
        runs: the Celery application that the workers run, as after ``-A``.
        command: of the user's own beside them, program and arguments; none: no command.
    """

    critical_slots: int
    shared_slots: int
    flower_port: int | None
    behaviour: Mapping[str, float]
    runs: str = "celery_app"
    command: tuple[str, ...] = ()


class Stack:
    """The running stack, as a context manager; where a part fails, all are stopped before the error is raised.

    Attributes:
        settings: those given, with the stack's own broker and API in it once they run.
        app: a Celery application for them, to submit with.
        simulated: whether the API is a simulated one.
        flower: None if it is left out.
        command: None if there is none.
        children: name of the log -> the process, in the order of their start.
    """

    def __init__(self, plan: Plan, settings: Settings, interrupts: Interrupts, steps: Steps) -> None:
        """Look at what was set, so that what is wrong is said before anything is started.

        Raises:
            InvalidSettings, ApiKeyMissing, PackageMissing, PortTaken, EmbeddedBrokerUnusable: as they say.
        """
        settings.check_broker()
        self.settings = settings
        self.flower = None if plan.flower_port is None else Flower(plan.flower_port)
        is_named = settings.has_own_broker or settings.broker_url != DEFAULT_BROKER_URL
        self._broker = None if is_named else Valkey()
        self._ezai = None if api.is_real(self.settings) else api.SimulatedEzai(self.settings, **plan.behaviour)
        self.command: Command | None = None
        self._plan, self._interrupts, self._steps = plan, interrupts, steps
        self.children: dict[str, Child] = {}

    @property
    def simulated(self) -> bool:
        """Whether the API is a simulated one."""
        return self._ezai is not None

    @property
    def environ(self) -> dict[str, str]:
        """What an application beside the stack needs in its environment, besides what is there already."""
        broker = {"CELERY_BROKER_URL": self.settings.broker_url} if self._broker else {}
        return broker | ({"EZAI_BASE_URL": self.settings.base_url} if self._ezai else {})

    def __enter__(self) -> Self:
        """Start everything, and return when everything is ready."""
        self.group = ProcessGroup()
        try:
            with self._steps:
                self._start_all()
        except BaseException:
            self._stop_all()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop everything, workers first."""
        self._stop_all()

    def check(self) -> None:
        """Raise what has happened since the last look.

        Raises:
            KeyboardInterrupt: somebody wants it to end.
            ChildEnded, GuardEnded: a process is gone.
        """
        self._interrupts.check()
        for child in self.children.values():
            child.check()
        self.group.check()

    def _start_all(self) -> None:
        if self._broker:
            self._start(self._broker)
            self.settings = dataclasses.replace(self.settings, broker_url=self._broker.url)
        # Whatever backend the project has, this application needs one that it can be sure of.
        self.app: Any = create_app(dataclasses.replace(self.settings, result_backend=self.settings.broker_url))
        self.workers = two_workers(self.app, self._plan.critical_slots, self._plan.shared_slots, self._plan.runs)
        if not self._broker:
            self._check_foreign_broker()
        if self._ezai:
            self._start(self._ezai)
            self.settings = dataclasses.replace(self.settings, base_url=self._ezai.url)
        self._start(*self.workers)
        if self.flower:
            # After the workers: it asks at its start which there are.
            self._start(self.flower)
        if self._plan.command:
            # Last, with a port that was free a moment ago.
            self.command = Command(self._plan.command)
            self._start(self.command)

    def _check_foreign_broker(self) -> None:
        with self._steps.step("broker (CELERY_BROKER_URL)"), broker_errors(self.app):
            redis_client(self.app).ping()
            for worker in self.workers:
                if worker.is_ready():
                    raise WorkerNameTaken(name=worker.node)

    def _start(self, *parts: Part) -> None:
        """Start parts together, and wait for each."""
        started = [(part, time.monotonic(), self._launch(part)) for part in parts]
        for part, begun, child in started:
            with self._steps.step(part.title, begun):
                self._await(part, begun + part.ready_seconds, child)

    def _launch(self, part: Part) -> Child:
        child = part.start(self.group, self._child_environ())
        self.children[child.log.stem] = child
        return child

    def _child_environ(self) -> dict[str, str]:
        key = {"EZAI_API_KEY": api.SIMULATED_KEY} if self._ezai else {}
        # Unbuffered, so that the end of a log is there when its writer has died.
        # Flower runs an application of ours, which does not know the project's configuration.
        broker = {"CELERY_BROKER_URL": self.settings.broker_url}
        return {**os.environ, **broker, **self.environ, **key, "PYTHONUNBUFFERED": "1"}

    def _await(self, part: Part, deadline: float, child: Child) -> None:
        while not part.is_ready():
            self.check()
            if time.monotonic() > deadline:
                raise NotReady(name=child.name, seconds=part.ready_seconds, log=child.tail())
            time.sleep(TICK)
        # What answers might be a stranger on the same port.
        self.check()

    def _stop_all(self) -> None:
        self._interrupts.begin_ending()
        workers = [child for name, child in self.children.items() if name.startswith("worker-")]
        others = [child for child in reversed(self.children.values()) if child not in workers]
        with self._steps, self._steps.step("stopping (Ctrl-C hurries it)"):
            stop(workers, WORKER_GRACE, self._is_hurried)
            for child in others:
                stop([child], GRACE, self._is_hurried)
            self.group.close()

    def _is_hurried(self) -> bool:
        return self._interrupts.hurried
