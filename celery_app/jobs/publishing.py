"""One submission on its way into a lane: how long it may take, and whether its job may be queued already."""

from __future__ import annotations

import secrets
import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from kombu.exceptions import OperationalError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery_app.jobs.announcement import Announcement

#: Seconds that the broker may take to answer a command: a web request that finds it mute has 3 s to say so. A worker
#: has more patience, see `celery_app.messaging`.
REPLY_TIMEOUT = 1.4

#: Seconds without an answer after which a web request is told: two replies waited for, and
#: within the 3 s that are promised.
SUBMIT_WITHIN = 2.85

#: Bytes of a token: as unlikely to be drawn twice within minutes as anything has to be.
_TOKEN_BYTES = 12

_current: ContextVar[Publishing | None] = ContextVar("publishing", default=None)


_found: ContextVar[list[str] | None] = ContextVar("found", default=None)


@contextmanager
def noting_found() -> Iterator[list[str]]:
    """Collect within the block the ids of jobs that there were already, by the names of those that were submitted."""
    found: list[str] = []
    token = _found.set(found)
    try:
        yield found
    finally:
        _found.reset(token)


class PublishUncertain(OperationalError):
    """The connection was lost while the broker had a job to queue: there is none, or one."""


class Publishing:
    """One submission, through all its repetitions.

    Attributes:
        is_uncertain: whether the broker was given the job and has not said what came of it.
        instead: id of the job that there is already by the same name, so that this one was not queued; else None.
        announcement: the event that tells of the job once it is queued; None: nobody is told.
    """

    def __init__(self, within: float | None, announcement: Announcement | None = None) -> None:
        """Begin.

        Args:
            within: seconds without an answer; None: as long as the connection's own timeouts allow.
            announcement: the event that tells of the job.
        """
        self.announcement = announcement
        self.is_uncertain = False
        self.instead: str | None = None
        self._within = within
        self._silent_since = time.monotonic()

    def seconds_left(self) -> float | None:
        """Return the seconds that an answer may still be waited for, None where there is no bound."""
        if self._within is None:
            return None
        return max(0.0, self._silent_since + self._within - time.monotonic())

    def sent(self) -> None:
        """Note that the broker is about to be given the job."""
        self.is_uncertain = True

    def answered(self) -> None:
        """Note that the broker has answered, whatever it said."""
        self.is_uncertain = False
        self.heard()

    def found(self, task_id: str) -> None:
        """Note that there is such a job already."""
        self.instead = task_id
        found = _found.get()
        if found is not None:
            found.append(task_id)

    def heard(self) -> None:
        """Note that the broker has given a sign of life."""
        self._silent_since = time.monotonic()


def publishing_now() -> Publishing:
    """Return the submission under way; one without a bound for a message that comes from elsewhere."""
    return _current.get() or Publishing(None)


@contextmanager
def publishing(within: float | None, announcement: Announcement | None = None) -> Iterator[Publishing]:
    """Submit one job within the block.

    Raises:
        PublishUncertain: in place of whatever ended it, where the job may be queued.
    """
    submission = Publishing(within, announcement)
    token = _current.set(submission)
    try:
        yield submission
    except Exception as exc:
        if not submission.is_uncertain:
            raise
        raise PublishUncertain(f"{exc}; it is not known whether the job was queued") from exc
    finally:
        _current.reset(token)


def new_token() -> str:
    """Return a token for one submission."""
    return secrets.token_urlsafe(_TOKEN_BYTES)
