"""What a test says to the lanes, and what it asks them."""

from __future__ import annotations

import difflib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from celery import _state, current_app

from celery_app import stand_in
from celery_app.errors import ApiError, UnknownLane
from celery_app.lanes import LANES
from celery_app.settings import has_lanes
from celery_app.testing.here import InJob
from celery_app.testing.standing_in import StandingIn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery_app.testing.answers import Answer
    from celery_app.testing.job import Job

#: Status of the API's refusal, unless a test says otherwise: it is overloaded.
_OVERLOADED = 529

_NAMES = tuple(lane.name for lane in LANES)


class Lanes:
    """The lanes of a test: each job runs at once, in the thread that submits it, and the API's answers are the test's.

    Whatever checks a job where it is submitted does so here, too: a wrong role, a misspelt lane. A project's own tasks
    in lanes run for real, with room in every budget; their SDK's answers are for the test to give, `sdk` gives those
    of `answer`. Tasks that are in no lane are none of this: they do what Celery's settings say.
    """

    def __init__(self, standing_in: StandingIn) -> None:
        self._standing_in = standing_in

    def answer(self, *answers: Answer) -> None:
        """Answer the calls to come: the first with the first, and so on; the last answer stays.

        Args:
            answers: a text; a message or some of its fields, as a dict or as the SDK's object; an exception, with which
                the job fails; or a function that makes one of these of the call's parameters.

        Raises:
            TypeError: it is none of these.
        """
        self._standing_in.answers.set(answers)

    def fail(self, error: Exception | None = None, *, status: int = _OVERLOADED, text: str = "a test wants it") -> None:
        """Fail the calls to come, as they do once a lane's attempts are used up.

        Args:
            error: what they fail with; None: the API's refusal, by `status`.
            status: of the API's answer: 400, 401, 529, …
            text: its words.
        """
        self.answer(error or api_error(status, text))

    def hold(self) -> None:
        """Hold the jobs to come in their lanes, until `drain`; whoever waits for one of them is told at once so.

        `ask` and a stream's reader get `DeadlineExceeded`, as if the lane's time had passed; ``AsyncResult.get`` and a
        batch's ``results`` get a `TimeoutError`.
        """
        self._standing_in.held = True

    def drain(self, lane: str | None = None) -> list[Job]:
        """Run the jobs that are held, most important lane first, those that come in meanwhile, too; return them.

        Args:
            lane: of that lane only.

        Raises:
            UnknownLane: there is none of that name.
        """
        _check(lane)
        return self._standing_in.drain(lane)

    def fill(self, *lanes: str) -> None:
        """Let lanes have no room any more: whoever submits a job there gets `LaneFull`, and at once.

        Args:
            lanes: their names; none: all.

        Raises:
            UnknownLane: there is none of that name.
        """
        for name in lanes:
            _check(name)
        self._standing_in.full.update(lanes or _NAMES)

    def cut(self) -> None:
        """Let no broker answer any more: whoever submits a job gets `BrokerUnreachable`, and at once."""
        self._standing_in.cut = True

    def jobs(self, lane: str | None = None, task: str | None = None) -> list[Job]:
        """Return the jobs that were submitted, in order; a retry is no other job.

        Args:
            lane: of that lane only.
            task: of the task of that name only.

        Raises:
            UnknownLane: there is none of that name.
        """
        _check(lane)
        jobs = list(self._standing_in.jobs)
        return [job for job in jobs if lane in {None, job.lane} and task in {None, job.task}]

    def sdk(self) -> Any:
        """Return an ``anthropic.Anthropic`` whose calls get the answers of `answer`, for a project's own tasks."""
        from celery_app.testing.sdk import client

        return client(self._standing_in.answers)


def api_error(status: int, text: str) -> ApiError:
    """Return the API's refusal with a status."""
    from tasks.refusals import STATUS_OF_TYPE

    types = {each: kind for kind, each in STATUS_OF_TYPE.items()}
    return ApiError(status=status, type=types.get(status, "error"), text=text)


def _check(lane: str | None) -> None:
    if lane is not None and lane not in _NAMES:
        nearest = difflib.get_close_matches(lane, _NAMES, n=1)
        hint = f" (did you mean {nearest[0]!r}?)" if nearest else ""
        raise UnknownLane(name=lane, hint=hint, lanes=", ".join(_NAMES))


@contextmanager
def in_process(*apps: Any) -> Iterator[Lanes]:
    """Answer calls in this process while the block runs; what the fixture `lanes` does.

    Args:
        apps: further Celery applications whose results are looked up before the first of their jobs; the process's
            own need not be named.

    Raises:
        RuntimeError: a block within a block.
    """
    if stand_in.stand_in() is not None:
        raise RuntimeError("calls are answered in process already: one fixture or block at a time")
    standing_in = StandingIn()
    would_block = _state.task_join_will_block()
    for app in (current_app._get_current_object(), *apps):
        if has_lanes(app):
            standing_in.adopt(app)
    stand_in.install(standing_in)
    _state._set_task_join_will_block(InJob())
    try:
        yield Lanes(standing_in)
    finally:
        _state._set_task_join_will_block(would_block)
        stand_in.install(None)
        standing_in.release()
