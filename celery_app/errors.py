"""What can go wrong: each class's docstring is its message, each detail an attribute."""

from __future__ import annotations

from typing import Any

from celery.exceptions import Ignore


class LanesError(Exception):
    """Something is wrong with the lanes."""

    def __init__(self, message: str | None = None, **details: Any) -> None:
        """Fill the details into the docstring, or take a message that was made before.

        Celery's JSON result backend rebuilds an error from ``exc.args``, so the message has to be the only argument.
        """
        vars(self).update(details)
        super().__init__(message if message is not None else (self.__doc__ or "").format(**details))


class InvalidSettings(LanesError):
    """Invalid settings: {problems}"""  # noqa: D415 - it ends in the list

    problems: str


class UnknownLane(LanesError):
    """There is no queue {name!r}{hint}. The lanes are {lanes}; other queues have to be declared in task_queues."""

    name: str


class UnsupportedWorker(LanesError):
    """This worker cannot start: {reason}."""

    reason: str


class UnsupportedTask(LanesError):
    """The task {name} cannot run in a lane: {reason}."""

    name: str
    reason: str


class EagerRefused(LanesError):
    """task_always_eager would call the API for real: use celery_app.testing (its fixture `lanes`), or run a worker."""


class WouldBlock(LanesError, RuntimeError):
    """{what} may wait for ever within a task: {advice}."""

    what: str


class InvalidRequest(LanesError):
    """{path}: {problem}."""

    path: str
    problem: str


class InvalidItem(InvalidRequest):
    """Item {index}: {path}: {problem}."""

    index: int


class JobTooLarge(LanesError):
    """The job has {size:,} bytes, and the broker takes at most {most:,}: send less, or a reference."""

    size: int
    most: int


class UnknownBatch(LanesError):
    """There is no batch {batch_id!r}: it was never submitted, or it ended more than {kept_days:.0f} days ago."""

    batch_id: str
    kept_days: float


class UnknownJob(LanesError):
    """There is no stream of a job {task_id!r}: it was never submitted to be streamed, or it ended long ago."""

    task_id: str


class UnforeseenFailure(LanesError):
    """The call failed in a way that nobody foresaw ({kind}); its message is withheld, it may repeat the prompt."""

    kind: str


class DeadlineExceeded(LanesError):
    """The job's deadline passes {where}; it had {allowed:.0f} s from its submission."""

    where: str
    allowed: float


class Cancelled(LanesError, Ignore):
    """The job was cancelled."""

    # Celery stores no outcome for what is to be ignored, so that the job's REVOKED stays.


class Buried(LanesError):
    """Nobody will work on the job any more, it is among the dead letters: {reason}."""

    reason: str


class KilledItsWorker(Buried):
    """The job took its worker along again and again, and is among the dead letters now: {reason}."""


class UnknownDeadLetter(LanesError):
    """There is no dead letter {id!r}: it was replayed or purged, or has made room for newer ones."""

    id: str


class StreamExpired(LanesError):
    """The stream of job {task_id} is gone: it is kept for {kept:.0f} s after its end."""

    task_id: str
    kept: float


class CallTimeout(LanesError):
    """The API did not finish its answer within {timeout:.1f} s{bound}."""

    timeout: float

    def __init__(self, message: str | None = None, *, bound: str = "", **details: Any) -> None:
        """Say what set the time, as in ``LANES_BATCH_CALL_TIMEOUT``, where that is known."""
        super().__init__(message, bound=f" ({bound})" if bound else "", **details)


class NotAMessage(LanesError):
    """The API answered with status {status} and a body that is no message ({content_type})."""

    status: int
    content_type: str


class ApiError(LanesError):
    """The API refused the call: {status} {type}: {text}"""  # noqa: D415 - it ends in the API's own words

    status: int
    type: str
    text: str


class AccountRefused(ApiError):
    """The API refuses every call with this key: {reason} (one job a minute tries it again)."""

    reason: str


class PromptTooLarge(LanesError):
    """The prompt has about {tokens:,} input tokens, and the limit is {limit:,} a minute: no waiting helps."""

    tokens: int
    limit: int


class ApiUnreachable(LanesError):
    """The API could not be reached, or the connection was lost: {reason}."""

    reason: str


class OutOfBudget(LanesError):
    """The budget has no room for this job for another {wait:.2f} s ({dimension})."""

    wait: float
    dimension: str


class LaneFull(LanesError):
    """The lane {lane} is full: {depth} jobs queued, capacity {capacity}; no room came free within {waited:.1f} s."""

    lane: str
    depth: int
    capacity: int
    waited: float


class LaneDraining(LanesError):
    """The lane {lane} takes no jobs: {by} drains it; submit to another lane, or later."""

    lane: str
    by: str


class InvalidControl(LanesError):
    """{problem}"""  # noqa: D415 - it may end in a question, or in what would be right

    problem: str


class BrokerUnreachable(LanesError):
    """No broker answers at {url} ({reason}): start Redis or Valkey there, or set CELERY_BROKER_URL."""

    url: str
    reason: str


class MaybeQueued(BrokerUnreachable):
    """The broker at {url} stopped answering ({reason}): it is not known whether the job was queued; once at most."""


class BrokerRefused(BrokerUnreachable):
    """The broker at {url} lets nobody in ({reason}): check user and password in CELERY_BROKER_URL, or broker_url."""


class BrokerTakesNoWrites(BrokerUnreachable):
    """The broker at {url} takes no writes ({reason}): it needs memory, disk or a replica; try again once it has."""


def error_event(error: Exception) -> dict[str, Any]:
    """Return an error in the form in which the Messages API itself ends a stream that fails."""
    kind = error.type if isinstance(error, ApiError) and hasattr(error, "type") else type(error).__name__
    return {"type": "error", "error": {"type": kind, "message": str(error)}}
