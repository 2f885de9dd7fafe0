"""Which dead letters there are, and what is known of one."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from celery_app.broker.body import read_body
from celery_app.client.client import Client
from celery_app.connections.redis_client import broker_errors, key_prefix, redis_client
from celery_app.dead_letters.failure import failure_of
from celery_app.errors import UnknownDeadLetter
from celery_app.keys import DEAD, TEXT, TEXTS
from celery_app.scheduler.scripts import LIST_DEAD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

T = TypeVar("T")

#: Told how many of how many are done.
Progress: TypeAlias = "Callable[[int, int], None]"

#: Ids fetched in one step, and letters read by one script: it keeps Redis from anything else for half a millisecond.
_MOST_IDS, _MOST_READ = 500, 50

_MS_PER_S = 1000


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A job that nobody will work on, without its arguments.

    Attributes:
        id: of its record; its task's id, unless there was another job of that id at the same time.
        lane: its lane, or another queue.
        task: name of its task; empty for a message that nobody can read, and so are the names below.
        task_id: its task's id.
        tenant: whose it was.
        model: that it would have called.
        batch: id of its batch; empty for none.
        reason: why, in words that show nothing of its arguments.
        tries: attempts that it made.
        submitted_at: when it was submitted.
        died_at: when it became a dead letter.
        age_s: seconds since then.
        size: bytes of its message.
        error: what its result says, of errors of a project's own the class alone; empty for none, and where it is
            not asked for (`get` does).
        traceback: likewise, where in the code it was raised.
    """

    id: str
    lane: str
    task: str
    task_id: str
    tenant: str
    model: str
    batch: str
    reason: str
    tries: int
    submitted_at: datetime
    died_at: datetime
    age_s: float
    size: int
    error: str = ""
    traceback: str = ""


def find(
    app: Any = None,
    *,
    lane: str | None = None,
    task: str | None = None,
    reason: str | None = None,
    tenant: str | None = None,
    since: float | None = None,
    before: float | None = None,
    most: int | None = None,
    progress: Progress | None = None,
) -> list[DeadLetter]:
    """Return the dead letters that everything holds for that is said, the newest first.

    Args:
        app: a Celery application with lanes; None: the process's own.
        lane: its name, or another queue's.
        task: its name, or a pattern for it: ``proj.*``.
        reason: a part of it, in upper or lower case.
        tenant: its name; empty for jobs of nobody in particular.
        since: seconds since its death at most.
        before: seconds since its death at least.
        most: how many at most; None: all.
        progress: told how many have been looked at.

    Raises:
        BrokerUnreachable: if no broker answers.
    """
    app = Client(app).app

    def is_wanted(letter: DeadLetter) -> bool:
        return (
            (lane is None or letter.lane == lane)
            and (task is None or fnmatchcase(letter.task, task))
            and (reason is None or reason.casefold() in letter.reason.casefold())
            and (tenant is None or letter.tenant == tenant)
        )

    with broker_errors(app):
        ids = _ids(app, since, before)
        return list(islice(filter(is_wanted, _letters(app, ids, progress)), most))


def get(letter_id: str, app: Any = None) -> DeadLetter:
    """Return what is known of a dead letter, with its error and traceback.

    Args:
        letter_id: as `find` has it.
        app: a Celery application with lanes; None: the process's own.

    Raises:
        UnknownDeadLetter: there is none.
        BrokerUnreachable: if no broker answers.
    """
    app = Client(app).app
    letter = known(app, letter_id)
    with broker_errors(app):
        error, traceback = failure_of(app, letter.task, letter.task_id)
    return replace(letter, error=error, traceback=traceback)


def payload(letter_id: str, app: Any = None) -> dict[str, Any]:
    """Return a dead letter's arguments, which are as private as the prompt that they may hold.

    Returns:
        ``{"args": […], "kwargs": {…}}``; ``{"message": text}`` of what nobody can read.

    Raises:
        UnknownDeadLetter: there is none.
        BrokerUnreachable: if no broker answers.
    """
    app = Client(app).app
    letter = known(app, letter_id)
    with broker_errors(app):
        text = text_of(app, letter.id)
    try:
        args, kwargs, _ = read_body(json.loads(text))
    except (ValueError, TypeError):
        return {"message": text.decode(errors="replace")}
    return {"args": args, "kwargs": kwargs}


def known(app: Any, letter_id: str) -> DeadLetter:
    """Return the dead letter of an id, as `get` does but for its error."""
    with broker_errors(app):
        letter = next(_letters(app, [letter_id], None), None)
    if letter is None:
        raise UnknownDeadLetter(id=letter_id)
    return letter


def text_of(app: Any, letter_id: str) -> bytes:
    """Return a job's message, wherever it lies."""
    client, prefix = redis_client(app), key_prefix(app)
    text: Any = client.hget(TEXTS.of(prefix), letter_id)
    if text is None:
        text = client.get(TEXT.of(prefix, letter_id))
    return bytes(text or b"")


def portions(things: Sequence[T], size: int, progress: Progress | None) -> Iterator[Sequence[T]]:
    """Yield some of these things at a time, and tell after each portion how many are done."""
    for at in range(0, len(things), size):
        yield things[at : at + size]
        if progress is not None:
            progress(min(at + size, len(things)), len(things))


def _ids(app: Any, since: float | None, before: float | None) -> list[str]:
    """Return the ids of those that died within these times, the newest first.

    They are all fetched, in steps: a page by rank or by time would miss some while others come and go.
    """
    client = redis_client(app)
    seconds, micros = client.time()
    now = seconds * _MS_PER_S + micros / _MS_PER_S
    oldest = now - since * _MS_PER_S if since is not None else float("-inf")
    newest = now - before * _MS_PER_S if before is not None else float("inf")
    found = dict(client.zscan_iter(DEAD.of(key_prefix(app)), count=_MOST_IDS))
    times = sorted(((at, name) for name, at in found.items() if oldest <= at <= newest), reverse=True)
    return [name.decode(errors="replace") for _, name in times]


def _letters(app: Any, ids: list[str], progress: Progress | None) -> Iterator[DeadLetter]:
    client, prefix, now = redis_client(app), key_prefix(app), datetime.now(UTC)
    for some in portions(ids, _MOST_READ, progress):
        rows = LIST_DEAD.run(client, (), (prefix, *some))
        yield from (_letter(row, now) for row in rows)


def _letter(row: Any, now: datetime) -> DeadLetter:
    own, lane, task, task_id, tenant, model, batch, reason = (word.decode(errors="replace") for word in row[:8])
    tries, submitted_ms, died_ms, size = row[8:]
    # Ages are by Redis' clock. This machine's, which may be another, is that of whoever reads the times.
    submitted_at, died_at = (now - timedelta(milliseconds=ms) for ms in (submitted_ms, died_ms))
    age_s = died_ms / _MS_PER_S
    return DeadLetter(own, lane, task, task_id, tenant, model, batch, reason, tries, submitted_at, died_at, age_s, size)


def as_letters(app: Any, letters: Iterable[DeadLetter | str]) -> list[DeadLetter]:
    """Return the dead letters of ids.

    Raises:
        UnknownDeadLetter: one of these is none.
    """
    return [known(app, each) if isinstance(each, str) else each for each in letters]
