"""What Celery has to know of any task in a lane, whatever a project's settings say for its own tasks."""

from __future__ import annotations

from typing import Any

from celery import Task

from celery_app.errors import LanesError
from celery_app.jobs.descriptions import store_descriptions
from celery_app.jobs.limits import LIMITS, annotated
from celery_app.messaging import SERIALIZER
from celery_app.results.backend import backend_of


class LaneDefaults(Task):
    """Celery's side of `tasks.base.LaneTask`."""

    abstract = True
    #: Tells the router that a job sent to no particular queue belongs in a lane.
    in_lanes = True
    #: A job belongs to the broker until it is done, ...
    acks_late = True
    #: ... and a pool's process that was killed has not done its job.
    reject_on_worker_lost = True
    #: A failure is an end: the lane's attempts are used up by then.
    acks_on_failure_or_timeout = acks_on_failure = acks_on_timeout = True
    #: These tasks are called for their results.
    ignore_result = False
    #: A pickle from the broker would be code from the broker.
    serializer = SERIALIZER
    #: The lane's ``attempts`` decides.
    max_retries = None
    #: A project's defaults for these are meant for tasks that nothing else limits: in a lane they would park jobs in
    #: slots, or say what a thread cannot keep.
    from_config = tuple(pair for pair in Task.from_config if pair[0] not in LIMITS)
    #: What the API or the lane foresaw is no reason for a traceback in the worker's log; a task's own join them.
    throws: tuple[type[Exception], ...] = (LanesError,)
    #: Characters of a result in the worker's log and in Flower: none, an answer is as private as its prompt.
    resultrepr_maxsize = 0
    #: Describes the arguments of a job that comes from a producer without this code.
    Request = "celery_app.broker.request:LaneRequest"

    @classmethod
    def on_bound(cls, app: Any) -> None:
        """Keep our own errors among those that a task foresees when it names others."""
        super().on_bound(app)
        own = cls.throws if isinstance(cls.throws, tuple) else (cls.throws,)
        cls.throws = own if LanesError in own else (*own, LanesError)

    @classmethod
    def annotate(cls) -> None:
        """Take what ``task_annotations`` says of this task by name; its limits for all tasks end before the lanes."""
        own = {name: getattr(cls, name) for name in LIMITS}
        super().annotate()
        for name, value in own.items():
            setattr(cls, name, annotated(cls, name, value))

    @property
    def backend(self) -> Any:
        """The project's own result backend, or the lanes' where it has none; a task may be given another."""
        backend = backend_of(self.app) if self._backend is None else self._backend
        retrying = getattr(self.app, "lanes_result_retry", None)  # where jobs run
        return store_descriptions(backend if retrying is None else retrying(backend))

    @backend.setter
    def backend(self, value: Any) -> None:
        self._backend = value
