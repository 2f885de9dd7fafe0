"""Dead letters that go back to their places, to be worked on once more."""

from __future__ import annotations

import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from celery_app.client.client import Client
from celery_app.connections.redis_client import broker_errors, key_prefix, redis_client
from celery_app.dead_letters.failure import forget_failures
from celery_app.dead_letters.letters import as_letters, portions, text_of
from celery_app.dead_letters.steps import Steps
from celery_app.keys import BATCH_KEPT, STREAM_KEPT_QUEUED, STREAM_TASK, TEXT, TEXTS
from celery_app.scheduler.scripts import REPLAY, REQUEUE
from celery_app.settings import settings_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from celery_app.dead_letters.letters import DeadLetter, Progress

#: Letters that are taken in hand by one script, which keeps Redis from anything else for half a millisecond. Their
#: failures have to be forgotten within their lease (`celery_app.broker.lease.LEASE`, 15 s).
AT_ONCE = 20


@dataclass(frozen=True, slots=True)
class Replayed:
    """What became of dead letters that were to be replayed.

    Attributes:
        replayed: they are back in their lines.
        gone: they were no dead letters any more; somebody else may have replayed them.
        untold: they stay, since no worker has told yet those who wait for them; about a second after their deaths.
        name_taken: they stay, since another job has their unique name.
        lane_full: lane -> how many stay because it had no room.
    """

    replayed: int = 0
    gone: int = 0
    untold: int = 0
    name_taken: int = 0
    lane_full: dict[str, int] = field(default_factory=dict)

    @property
    def stay(self) -> int:
        """How many are dead letters as before."""
        return self.untold + self.name_taken + sum(self.lane_full.values())


def replay(letters: Iterable[DeadLetter | str], app: Any = None, progress: Progress | None = None) -> Replayed:
    """Put dead letters back at their places in their lines, the oldest first, as far as their lanes have room.

    Each keeps its id and gets fresh attempts and as long a deadline as it had. That it has failed is forgotten, for
    itself and for the steps chained behind it, and its batch counts it anew. Whoever asks for its result from now on
    waits, and gets the answer. A chord that it was a part of has failed and stays so.

    Args:
        letters: as `find` returns them, or ids.
        app: a Celery application with lanes; None: the process's own.
        progress: told how many are done.

    Raises:
        UnknownDeadLetter: an id is that of none; nothing has been done.
        BrokerUnreachable: if no broker, or no result backend, answers; what is replayed stays so.
    """
    app = Client(app).app
    chosen = sorted(as_letters(app, letters), key=lambda letter: -letter.age_s)
    process, words, full = uuid.uuid4().hex, Counter[str](), Counter[str]()
    with broker_errors(app):
        for number, some in enumerate(portions(chosen, AT_ONCE, progress)):
            said = _replay_some(app, some, f"{process}:{number}")
            words.update(said)
            full.update(letter.lane for letter, word in zip(some, said, strict=True) if word == "full")
    return Replayed(words["done"], words["gone"], words["untold"], words["named"], dict(full))


def _replay_some(app: Any, letters: Sequence[DeadLetter], token: str) -> list[str]:
    """Take them in hand, forget that they have failed, put them back; return what the script says of each.

    In hand, because whoever forgot it without that could forget an answer that has come meanwhile.
    """
    client, prefix, lanes = redis_client(app), key_prefix(app), settings_of(app).lanes
    room = [part for lane in lanes for part in (lane.name, lane.capacity)]
    head = (prefix, token, STREAM_TASK, STREAM_KEPT_QUEUED, BATCH_KEPT, len(lanes), *room)
    said = [word.decode() for word in REPLAY.run(client, (), (*head, *(letter.id for letter in letters)))]
    taken = [letter for letter, word in zip(letters, said, strict=True) if word == "done"]
    try:
        for letter in taken:
            _begin_anew(app, letter)
    finally:
        for letter in taken:
            REQUEUE.run(client, (), (prefix, letter.id, token, 0, 0, 0, 0))
    return said


def _begin_anew(app: Any, letter: DeadLetter) -> None:
    """Forget that a job, and what is chained behind it, has failed, and part it from its chord, which has heard so."""
    steps = Steps.read(text_of(app, letter.id))
    forget_failures(app, letter.task, filter(None, (letter.task_id, *steps.chained)))
    if steps.has_chord:
        client, prefix, text = redis_client(app), key_prefix(app), steps.without_chord()
        if not client.set(TEXT.of(prefix, letter.id), text, xx=True):
            client.hset(TEXTS.of(prefix), letter.id, text)
