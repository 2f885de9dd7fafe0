"""Dead letters that go for good."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from celery_app.client.client import Client
from celery_app.connections.redis_client import broker_errors, key_prefix, redis_client
from celery_app.dead_letters.letters import portions
from celery_app.scheduler.scripts import DROP_DEAD

if TYPE_CHECKING:
    from collections.abc import Iterable

    from celery_app.dead_letters.letters import DeadLetter, Progress

#: Letters that one script drops; Redis does nothing else meanwhile, for half a millisecond.
AT_ONCE = 20


@dataclass(frozen=True, slots=True)
class Purged:
    """What became of dead letters that were to be dropped.

    Attributes:
        purged: nothing is left of them.
        gone: they were none any more.
        untold: they stay, since no worker has told yet those who wait for them; about a second after their deaths.
    """

    purged: int
    gone: int
    untold: int


def purge(letters: Iterable[DeadLetter | str], app: Any = None, progress: Progress | None = None) -> Purged:
    """Drop dead letters and their jobs.

    Args:
        letters: as `find` returns them, or ids.
        app: a Celery application with lanes; None: the process's own.
        progress: told how many are done.

    Raises:
        BrokerUnreachable: if no broker answers; those that are dropped stay so.
    """
    app = Client(app).app
    ids = [each if isinstance(each, str) else each.id for each in letters]
    client, prefix, words = redis_client(app), key_prefix(app), Counter[str]()
    with broker_errors(app):
        for some in portions(ids, AT_ONCE, progress):
            words.update(word.decode() for word in DROP_DEAD.run(client, (), (prefix, *some)))
    return Purged(words["done"], words["gone"], words["untold"])
