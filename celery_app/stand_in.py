"""The seam at which `celery_app.testing` stands in for broker, workers, result backend and API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from celery import _state

from celery_app.errors import EagerRefused, WouldBlock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from celery_app.lanes import Lane


#: As for ``AsyncResult.get``, whose rule this is.
_ADVICE = (
    "it holds a slot until another one is free; go on in a next step, "
    "chain(create_message.si(…).set(queue=…), next_step.s()), or, where other workers serve the lane, "
    "wait within celery.result.allow_join_result()"
)


class StandIn(Protocol):
    """What stands in; everything that would ask Redis asks here first whether there is one."""

    def adopt(self, app: Any) -> None:
        """Have an application's results in memory."""

    def backend_of(self, app: Any) -> Any:
        """Return the result backend of an application."""

    def take(self, app: Any, lane: Lane, message: Any, options: Mapping[str, Any]) -> None:
        """Take a job that would go into a lane, as Celery made its message."""

    def send(self, task: Any, args: Any, kwargs: Any, options: dict[str, Any]) -> Any:
        """Submit a task's job as ``apply_async`` does, in Celery's eager mode, too; return its `AsyncResult`."""

    def apply(self, task: Any, args: Any, kwargs: Any, options: dict[str, Any]) -> Any:
        """Run a task's job now, and return its `EagerResult`."""

    def perform(self, task: Any, params: Mapping[str, Any]) -> dict[str, Any]:
        """Answer a call in place of the API."""

    def submit_many(
        self, app: Any, items: Iterable[Any], lane: Lane, on_invalid: str, progress: Callable[[Any], None] | None
    ) -> Any:
        """Take the jobs of a batch, and return its handle."""

    def entries_after(self, task_id: str, after: str) -> list[tuple[bytes, Mapping[bytes, bytes]]]:
        """Return the entries of a job's stream behind one of them."""

    def has_job(self, task_id: str) -> bool:
        """Return whether a job of that id was submitted."""

    def batch_fields(self, batch_id: str) -> dict[bytes, bytes]:
        """Return what is known of a batch, as Redis has it; empty: nothing."""

    def ended_after(self, batch_id: str, after: str) -> list[tuple[bytes, Mapping[bytes, bytes]]]:
        """Return which of a batch's jobs have ended, behind one of them."""

    def cancel(self, job_or_batch_id: str) -> None:
        """Keep jobs that are held from running."""


_standing_in: StandIn | None = None


def stand_in() -> StandIn | None:
    """Return what stands in for the lanes in this process; None, but in tests."""
    return _standing_in


def install(new: StandIn | None) -> None:
    """Have it stand in for all threads of this process; None: nothing does any more."""
    global _standing_in  # noqa: PLW0603 - a test's web server has threads of its own
    _standing_in = new


def refuse_eager(app: Any) -> None:
    """Refuse Celery's eager mode where nothing stands in.

    A developer who sets ``CELERY_TASK_ALWAYS_EAGER`` wants no broker, mostly in tests. A job that then called the API
    for real would need Redis all the same, for the budget, which never fails open; and a test would cost money.

    Raises:
        EagerRefused: it is set.
    """
    if _standing_in is None and app.conf.task_always_eager:
        raise EagerRefused


def refuse_to_wait(what: str) -> None:
    """Refuse to wait for a job within a task, by the rule of ``AsyncResult.get``.

    Args:
        what: would wait, as the caller knows it.

    Raises:
        WouldBlock: unless within ``celery.result.allow_join_result()``.
    """
    if _state.task_join_will_block():
        raise WouldBlock(what=what, advice=_ADVICE)
